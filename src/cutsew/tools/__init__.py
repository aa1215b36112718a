"""Commands that no rule calls: they look after what the workflow made."""
