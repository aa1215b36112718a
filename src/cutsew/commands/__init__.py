"""Commands that no rule calls, one module each."""
