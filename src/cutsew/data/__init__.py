"""The user's images, labels and scores, and their layouts on disk."""
