"""Cutting: random crops of a photo (paper, Eq. 5). Which crop is taken depends on content alone."""

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from cutsew.numerics.draw import generator

EDGES = ("left", "top", "right", "bottom", "flip")
"""Names of the five numbers of a box: four edges in pixels, and 1 for a horizontal flip, else 0."""

TRIES = 10
"""Draws of size and shape before the whole photo's centre is taken, as in torchvision's RandomResizedCrop."""


def crop_boxes(
    digest: str,
    width: int,
    height: int,
    passes: Iterable[int],
    *,
    seed: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    flip: float,
) -> npt.NDArray[np.float32]:
    """Draw the crops C(x; rho) of one photo (Eq. 5).

    Crop k depends only on (seed, digest, k) and the photo's size.

    Args:
        digest: of the photo's bytes.
        width: of the photo, in pixels.
        height: of the photo, in pixels.
        passes: the k's.
        seed: of the crops.
        area: smallest and largest share rho of the photo's area, in (0, 1].
        aspect: smallest and largest width / height; the logarithm is uniform.
        flip: probability of a horizontal flip, in [0, 1].

    Returns:
        (len(passes), 5) whole pixels: left, top, right, bottom and flip (0 or 1).

    """
    boxes = [_crop_box(generator(seed, digest, k), width, height, area, aspect, flip) for k in passes]
    return np.array(boxes, dtype=np.float32).reshape(-1, len(EDGES))


def whole_box(width: int, height: int) -> npt.NDArray[np.float32]:
    """Return the box of the whole photo, (5,), not flipped."""
    return np.array([0, 0, width, height, 0], dtype=np.float32)


def cut(image: Image.Image, box: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.uint8]:
    """Crop, squash to a square, flip: the plain implementation. `numerics.cutting.cut_all` is the fast one.

    Args:
        image: RGB photo.
        box: (5,) as from `crop_boxes`.
        size: side of the square view, in pixels.

    Returns:
        (3, size, size) pixels, 0 to 255.

    """
    left, top, right, bottom, flip = (int(value) for value in box)
    view = image.crop((left, top, right, bottom)).resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(view, dtype=np.uint8).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[:, :, ::-1] if flip else pixels)


def whole(image: Image.Image, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Resize a whole RGB photo, bicubically: (3, height, width) pixels, 0 to 255."""
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1))


def _crop_box(
    rng: np.random.Generator,
    width: int,
    height: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    flip: float,
) -> tuple[float, ...]:
    shares = rng.uniform(*area, TRIES) * (width * height)
    shapes = np.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1]), TRIES))
    across, down, mirrored = rng.random(3)
    widths = np.maximum(1, np.rint(np.sqrt(shares * shapes))).astype(int)
    heights = np.maximum(1, np.rint(np.sqrt(shares / shapes))).astype(int)
    fits = np.flatnonzero((widths <= width) & (heights <= height))
    if len(fits):
        w, h = int(widths[fits[0]]), int(heights[fits[0]])
        left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
    else:
        w, h = _central(width, height, aspect)
        left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h, float(mirrored < flip)


def _central(width: int, height: int, aspect: tuple[float, float]) -> tuple[int, int]:
    """Size of the largest allowed shape, where no drawn crop fits: a very narrow photo."""
    shape = min(max(width / height, aspect[0]), aspect[1])
    if width / height > shape:
        return max(1, min(width, round(height * shape))), height
    return width, max(1, min(height, round(width / shape)))
