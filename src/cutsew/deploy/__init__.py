"""The student on its own: exported, and looking at new photos."""
