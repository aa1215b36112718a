"""Cutting: the crops of an image (paper, Eq. 5). Which crop is taken depends on content alone."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cutsew.method.random import keyed_rng

EDGES = ("left", "top", "right", "bottom", "flip")
"""Names of the five numbers of a box: four edges in pixels, and 1 for a horizontal flip, else 0."""

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
"""Pillow's, both antialiased, by the name that models' preprocessing gives them."""


class Square(NamedTuple):
    """How a model's input is resized: to a square of `size` pixels, with bicubic or bilinear resampling."""

    size: int
    interpolation: str


TRIES = 10
"""Draws of size and shape before the whole image's center is taken, as in torchvision's RandomResizedCrop."""


Layout = Literal["random", "spread", "tiles"]

PLASTIC = 1.32471795724474602596
"""The plastic number: real root of g^3 = g + 1. 1/g and 1/g^2 are the steps of the two-dimensional R2 sequence."""

AREA_STEP, ASPECT_STEP = (math.sqrt(5) - 1) / 2, math.sqrt(2) - 1
"""Steps of the two one-dimensional sequences that spread size and shape: no ratio of small numbers is close to them."""


def crop_boxes(
    digest: str,
    width: int,
    height: int,
    passes: Iterable[int],
    *,
    seed: int = 9,
    area: tuple[float, float] = (0.1, 0.2),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    layout: Layout = "random",
    tiles: Sequence[tuple[int, float]] = (),
) -> npt.NDArray[np.float32]:
    """Place the crops C(x; rho) of one image (Eq. 5).

    Crop k depends only on (seed, digest, k) and the image's size, so more passes add crops and change none.

    Args:
        digest: of the image's bytes.
        width: of the image, in pixels.
        height: of the image, in pixels.
        passes: the k's.
        seed: of the crops.
        area: smallest and largest share rho of the image's area, in (0, 1].
        aspect: smallest and largest width / height; the logarithm is uniform.
        flip: probability of a horizontal flip, in [0, 1].
        layout: `random` draws size, shape and place independently, as the paper does; `spread` takes them from
            low-discrepancy sequences with centers over the whole image; `tiles` is a fixed grid, without flips.
        tiles: layout tiles: (n, share) of each level, coarsest first: n x n tiles of `share` of both sides.

    Returns:
        (len(passes), 5) whole pixels: left, top, right, bottom and flip (0 or 1).

    """
    if layout == "tiles":
        grid = [_tile_box(width, height, n, share, i) for n, share in tiles for i in range(n * n)]
        boxes: list[tuple[float, ...]] = [grid[k] for k in passes]
    elif layout == "spread":
        shift = keyed_rng(seed, digest, "spread").random(4)
        boxes = [
            (*_spread_box(shift, k, width, height, area, aspect), float(keyed_rng(seed, digest, k).random() < flip))
            for k in passes
        ]
    else:
        boxes = [_crop_box(keyed_rng(seed, digest, k), width, height, area, aspect, flip) for k in passes]
    return np.array(boxes, dtype=np.float32).reshape(-1, len(EDGES))


def whole_box(width: int, height: int) -> npt.NDArray[np.float32]:
    """Return the box of the whole image, (5,), not flipped."""
    return np.array([0, 0, width, height, 0], dtype=np.float32)


def cut(
    image: Image.Image, box: npt.NDArray[np.float32], size: int, interpolation: str = "bicubic"
) -> npt.NDArray[np.uint8]:
    """Crop, squash to a square, flip: the plain implementation. `method.resample.cut_all` is the fast one.

    Args:
        image: RGB image.
        box: (5,) as from `crop_boxes`.
        size: side of the square view, in pixels.
        interpolation: bicubic or bilinear.

    Returns:
        (3, size, size) pixels, 0 to 255.

    """
    left, top, right, bottom, flip = (int(value) for value in box)
    view = image.crop((left, top, right, bottom)).resize((size, size), RESAMPLING[interpolation])
    pixels = np.asarray(view, dtype=np.uint8).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[:, :, ::-1] if flip else pixels)


def whole(image: Image.Image, width: int, height: int, interpolation: str = "bicubic") -> npt.NDArray[np.uint8]:
    """Resize a whole RGB image: (3, height, width) pixels, 0 to 255."""
    resized = image.resize((width, height), RESAMPLING[interpolation])
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


def _spread_box(
    shift: npt.NDArray[np.float64],
    k: int,
    width: int,
    height: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Place crop k by the shifted R2 sequence; centers cover the whole image, and boxes are moved inside.

    A uniform left edge, as in layout random, hardly ever shows an image's border: its outermost pixel column lies in a
    crop with probability 1 / (width - crop width + 1).
    """
    steps = np.array([1 / PLASTIC, 1 / PLASTIC**2, AREA_STEP, ASPECT_STEP])
    across, down, size, form = (shift + steps * (k + 1)) % 1
    share = (area[0] + (area[1] - area[0]) * size) * (width * height)
    shape = math.exp(math.log(aspect[0]) + (math.log(aspect[1]) - math.log(aspect[0])) * form)
    wide, high = math.sqrt(share * shape), math.sqrt(share / shape)
    shrink = min(1.0, width / wide, height / high)  # a very narrow image: the shape is kept, not the share
    w, h = max(1, round(wide * shrink)), max(1, round(high * shrink))
    left = min(max(0, round(across * width - w / 2)), width - w)
    top = min(max(0, round(down * height - h / 2)), height - h)
    return left, top, left + w, top + h


def _tile_box(width: int, height: int, n: int, share: float, index: int) -> tuple[float, ...]:
    """Return tile `index`, counted row by row, of n x n tiles of `share` of both sides; n = 1 is the central one."""
    row, column = divmod(index, n)
    left, right = _tile_edges(width, n, share, column)
    top, bottom = _tile_edges(height, n, share, row)
    return left, top, right, bottom, 0.0


def _tile_edges(length: int, n: int, share: float, index: int) -> tuple[int, int]:
    start = (1 - share) * (index / (n - 1) if n > 1 else 0.5)
    # Rounded twice, so that one tile's end and the next one's start, equal but for the last bits, are the same pixel.
    first, last = (math.floor(round(edge * length, 6) + 0.5) for edge in (start, start + share))
    first = min(first, length - 1)
    return first, max(first + 1, min(last, length))


def _central(width: int, height: int, aspect: tuple[float, float]) -> tuple[int, int]:
    """Size of the largest allowed shape, where no drawn crop fits: a very narrow image."""
    shape = min(max(width / height, aspect[0]), aspect[1])
    if width / height > shape:
        return max(1, min(width, round(height * shape))), height
    return width, max(1, min(height, round(width / shape)))
