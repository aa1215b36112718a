"""The embedded demo: a self-made world of emoji images and a tiny CLIP that has looked at it."""
