"""Fuzzing of the project's readers and native ops: ``make fuzz SECONDS=120``, described in docs/RELIABILITY.md."""
