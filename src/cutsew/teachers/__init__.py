"""Vision-language models that name what a photo shows."""
