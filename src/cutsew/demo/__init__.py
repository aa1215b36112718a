"""The embedded demo: a self-made world of emoji photos and a tiny CLIP that has looked at it."""
