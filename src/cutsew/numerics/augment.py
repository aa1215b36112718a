"""The two views of a sewn photo that the student sees: weak (resized) and strong (flipped and RandAugmented)."""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from cutsew.numerics.views import RESAMPLING

Pixels = npt.NDArray[np.uint8]
OPERATIONS = 2
"""RandAugment's operations per view, as in the released code."""


def weak_view(image: Image.Image, size: int, interpolation: str = "bicubic") -> Image.Image:
    """Resize an RGB photo to a square, its aspect squashed, by Pillow's bicubic or bilinear."""
    return image.resize((size, size), RESAMPLING[interpolation])


def strong_view(weak: Image.Image, seed: int) -> Image.Image:
    """Flip a weak view with probability 1/2, then apply RandAugment with two operations.

    Args:
        weak: RGB, square.
        seed: in [0, 2^63); the result depends on it and the pixels alone, and torch's global generator is left as it
            was (RandAugment draws from it).

    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        flipped = ImageOps.mirror(weak) if torch.rand(()) < 0.5 else weak
        return _rand_augment()(flipped)


def whole_look(photo: Image.Image, size: int, interpolation: str = "bicubic") -> Pixels:
    """Pixels of a photo's weak view, which is all that the student sees of one that is not sewn: (3, size, size)."""
    return pixels(weak_view(photo, size, interpolation))


def pixels(image: Image.Image) -> Pixels:
    """Pixels of an RGB image as (3, height, width) uint8."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


@cache
def _rand_augment() -> Callable[[Image.Image], Image.Image]:
    from cutsew.compat import import_torchvision  # noqa: PLC0415 - torchvision loads only where strong views are made

    import_torchvision()
    from torchvision.transforms import RandAugment  # noqa: PLC0415

    augment: Callable[[Image.Image], Image.Image] = RandAugment(num_ops=OPERATIONS)
    return augment
