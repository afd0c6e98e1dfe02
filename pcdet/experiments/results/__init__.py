"""What a plan found: the schema of its file, its tables, sentences and pictures."""
