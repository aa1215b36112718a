"""The student on its own: exported, and applied to new images."""
