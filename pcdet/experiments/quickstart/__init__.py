"""The quickstart: its trainings, its table, and what it means."""
