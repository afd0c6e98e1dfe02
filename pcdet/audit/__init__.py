"""The audit: what distillation won and lost, object by object, and the page that shows it."""
