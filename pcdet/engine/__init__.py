"""Training and evaluating a model on a loader: the engine is handed both and imports neither detectors nor data sets."""
