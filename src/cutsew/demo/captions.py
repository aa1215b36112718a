"""The words in which the tiny CLIP has read about the demo's scenes."""

from collections.abc import Sequence

from cutsew.demo.sprites import CLASSES

SPOKEN = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
"""VOC names that are no words -> their wording in captions. The demo's `prompts.names` says the same."""


def caption(names: Sequence[str]) -> str:
    """Word a caption that names one or two classes: `a photo of a dog and a dining table`."""
    return "a photo of " + " and ".join(f"a {SPOKEN.get(name, name)}" for name in names)


def all_captions() -> list[str]:
    """Return captions that together hold every token the tiny CLIP has read."""
    return [caption((name, name)) for name in CLASSES]
