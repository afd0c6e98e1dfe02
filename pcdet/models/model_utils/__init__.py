"""Non-maximum suppression, post-processing and weight loading as plain functions."""
