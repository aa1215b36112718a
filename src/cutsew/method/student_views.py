"""Views of a training or test image that the student sees.

- The two views of a sewn image that the student sees: weak (resized) and strong (flipped and RandAugmented).
- A student that looks at two scales: at the whole image, and closer at its four corners (not the paper's).

It learns from whole images, in which small objects are few pixels wide; a tile shows them larger.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from cutsew.method.crops import RESAMPLING
from cutsew.method.ensemble import ScoreStats, rescale, standardize

Pixels = npt.NDArray[np.uint8]
OPERATIONS = 2
"""RandAugment's operations per view, as in the released code."""


def weak_view(image: Image.Image, size: int, interpolation: str = "bicubic") -> Image.Image:
    """Resize an RGB image to a square, its aspect squashed, by Pillow's bicubic or bilinear."""
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


def resized_view(image: Image.Image, size: int, interpolation: str = "bicubic") -> Pixels:
    """Pixels of an image's weak view, which is all that the student sees of one that is not sewn: (3, size, size)."""
    return pixels(weak_view(image, size, interpolation))


def pixels(image: Image.Image) -> Pixels:
    """Pixels of an RGB image as (3, height, width) uint8."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


@cache
def _rand_augment() -> Callable[[Image.Image], Image.Image]:
    from cutsew.runtime.lazy_imports import import_torchvision  # noqa: PLC0415 - torchvision loads only where strong views are made

    import_torchvision()
    from torchvision.transforms import RandAugment  # noqa: PLC0415

    augment: Callable[[Image.Image], Image.Image] = RandAugment(num_ops=OPERATIONS)
    return augment


Floats = npt.NDArray[np.floating[Any]]

SHARE = 0.6
"""Side of a tile against the image's, so that neighbors share a third of a tile."""

NUM_VIEWS = 5
"""Views of an image: itself and four tiles."""


def tile_boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Return the tiles at the four corners as (left, top, right, bottom) in whole pixels.

    Args:
        width: of the image, at least 1 pixel.
        height: of the image, in pixels.

    """
    across, down = max(1, round(SHARE * width)), max(1, round(SHARE * height))
    corners = [(left, top) for top in (0, height - down) for left in (0, width - across)]
    return [(left, top, left + across, top + down) for left, top in corners]


def tile_views(image: Image.Image, size: int, interpolation: str = "bicubic") -> Pixels:
    """Cut the whole image and its tiles, squashed to squares as the student sees an image: (5, 3, size, size) uint8."""
    views = [image, *(image.crop(box) for box in tile_boxes(*image.size))]
    return np.stack([resized_view(view, size, interpolation) for view in views])


def tiled(z: Floats) -> Floats:
    """Combine what the student says of each view: the mean of the whole image's logit and its best tile's.

    Args:
        z: (n, 5, C) logits, the whole image's first.

    Returns:
        (n, C) of the same type.

    """
    best: Floats = z[:, 1:].max(axis=1)
    return (z[:, 0] + best) / 2


def on_whole_scale(z: Floats, of_whole: ScoreStats, of_tiled: ScoreStats) -> npt.NDArray[np.float32]:
    """Combine as `tiled` does, and set it on the scale of the whole images' logits.

    The best of four tiles lies higher than the whole image; thresholds and probabilities are the whole image's.

    Args:
        z: (n, 5, C) logits, the whole image's first.
        of_whole: score statistics of whole images.
        of_tiled: score statistics of what `tiled` returns.

    Returns:
        (n, C).

    """
    return rescale(standardize(tiled(z), of_tiled), of_whole)
