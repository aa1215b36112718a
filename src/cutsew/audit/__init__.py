"""The audit: where each label of a finished run comes from. It is read-only."""
