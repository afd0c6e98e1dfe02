"""What several tests share: builders of data and models, and ways to run commands."""
