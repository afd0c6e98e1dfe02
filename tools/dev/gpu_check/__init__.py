"""One check of everything that needs a GPU: README.md here."""
