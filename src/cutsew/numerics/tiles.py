"""A student that looks at two scales: at the whole photo, and closer at its four corners (not the paper's).

It learns from whole photos, in which small objects are few pixels wide; a tile shows them larger.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cutsew.numerics.augment import Pixels, whole_look
from cutsew.numerics.ensemble import Reference, on_scale, standardised

Floats = npt.NDArray[np.floating[Any]]

SHARE = 0.6
"""Side of a tile against the photo's, so that neighbours share a third of a tile."""

LOOKS = 5
"""Views of a photo: itself and four tiles."""


def tile_boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Return the tiles at the four corners as (left, top, right, bottom) in whole pixels.

    Args:
        width: of the photo, at least 1 pixel.
        height: likewise.

    """
    across, down = max(1, round(SHARE * width)), max(1, round(SHARE * height))
    corners = [(left, top) for top in (0, height - down) for left in (0, width - across)]
    return [(left, top, left + across, top + down) for left, top in corners]


def looks(photo: Image.Image, size: int, interpolation: str = "bicubic") -> Pixels:
    """Cut the whole photo and its tiles, squashed to squares as the student sees a photo: (5, 3, size, size) uint8."""
    views = [photo, *(photo.crop(box) for box in tile_boxes(*photo.size))]
    return np.stack([whole_look(view, size, interpolation) for view in views])


def tiled(z: Floats) -> Floats:
    """Combine what the student says of each view: the mean of the whole photo's logit and its best tile's.

    Args:
        z: (n, 5, C) logits, the whole photo's first.

    Returns:
        (n, C) of the same type.

    """
    best: Floats = z[:, 1:].max(axis=1)
    return (z[:, 0] + best) / 2


def on_whole_scale(z: Floats, of_whole: Reference, of_tiled: Reference) -> npt.NDArray[np.float32]:
    """Combine as `tiled` does, and set it on the scale of the whole photos' logits.

    The best of four tiles lies higher than the whole photo; thresholds and probabilities are the whole photo's.

    Args:
        z: (n, 5, C) logits, the whole photo's first.
        of_whole: what is usual for whole photos.
        of_tiled: what is usual for what `tiled` makes.

    Returns:
        (n, C).

    """
    return on_scale(standardised(tiled(z), of_tiled), of_whole)
