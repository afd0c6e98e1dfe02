"""Pure helpers: they know nothing of datasets, models or the engine."""
