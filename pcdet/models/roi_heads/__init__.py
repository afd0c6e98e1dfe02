"""Second stages, which refine proposals."""
