"""Trains and evaluates a model on a loader: both are handed in, so no detector and no data set is imported here."""
