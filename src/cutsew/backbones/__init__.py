"""Frozen image encoders that give grid features to the adapter."""
