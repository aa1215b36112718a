"""Readers of photos and of their layouts on disk."""
