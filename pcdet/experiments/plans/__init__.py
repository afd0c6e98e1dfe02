"""Plans of experiments: their file, what they run, what they decide, and what they conclude."""
