"""Non-maximum suppression and post-processing as plain functions."""
