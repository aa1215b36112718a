"""Sewing salient images onto others and blending their labels (paper, Eq. 11-13 and Algorithm 1)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cutsew.method.random import keyed_rng

Rows = npt.NDArray[np.int64]


class Plan(NamedTuple):
    """What is pasted onto one image, and where.

    Attributes:
        overlays: (k,) int64, manifest rows of the images pasted, bottom first; k may be 0.
        boxes: (k, 4) int64, left, top, right, bottom in pixels of the background.

    """

    overlays: Rows
    boxes: Rows


def plan(
    row: int,
    digest: str,
    pool: Rows,
    sizes: Rows,
    *,
    seed: int,
    epoch: int,
    p: float,
    q: float,
    ratio: Literal["area", "side"],
    max_overlays: int,
    at_least_one: bool,
) -> Plan:
    """Draw which images are pasted onto one background, and where (Eq. 11-12, Algorithm 1).

    The draws depend on `seed`, `epoch` and `digest` alone; nothing is decoded. Overlays are drawn from the pool
    without replacement (P' is a set) and without the background itself; each position is uniform.

    Args:
        row: manifest row of the background.
        digest: of the background's content.
        pool: (n,) int64, ascending and distinct manifest rows of the patch set P (Eq. 10).
        sizes: (N, 2) int64, width and height in pixels of every image of the manifest.
        seed: of the training.
        epoch: from 0.
        p: see `overlay_count`.
        q: see `overlay_size`.
        ratio: see `overlay_size`.
        max_overlays: L.
        at_least_one: see `overlay_count`.

    Returns:
        A plan of at most L overlays; fewer where the pool has fewer other images.

    """
    rng = keyed_rng(seed, "sew", epoch, digest)
    count = overlay_count(rng, p, max_overlays, at_least_one)
    place = int(np.searchsorted(pool, row))
    inside = place < len(pool) and int(pool[place]) == row
    num_outside = len(pool) - inside
    picks = (
        rng.choice(num_outside, size=min(count, num_outside), replace=False) if num_outside else np.zeros(0, np.int64)
    )
    if inside:
        picks = picks + (picks >= place)  # step over the background itself
    overlays = pool[picks.astype(np.int64)]
    width, height = (int(n) for n in sizes[row])
    boxes = np.zeros((len(overlays), 4), np.int64)
    for i, overlay in enumerate(overlays):
        wide, high = overlay_size(sizes[overlay], (width, height), q, len(overlays), ratio)
        left, top = rng.integers(0, width - wide, endpoint=True), rng.integers(0, height - high, endpoint=True)
        boxes[i] = left, top, left + wide, top + high
    return Plan(overlays, boxes)


def overlay_count(rng: np.random.Generator, p: float, max_overlays: int, at_least_one: bool) -> int:
    """Draw the number of overlays k.

    Args:
        rng: source of the draws.
        p: a probability in [0, 1).
        max_overlays: L, at least 1.
        at_least_one: False is Algorithm 1: one more with probability p until L, so P(0) = 1 - p,
            P(k) = p^k (1 - p), P(L) = p^L. True is the released code's rule: always one, then stop with probability p
            after each, so P(k) = (1 - p)^(k - 1) p and P(L) = (1 - p)^(L - 1).

    """
    count = int(at_least_one)
    more = 1 - p if at_least_one else p
    while count < max_overlays and rng.random() < more:
        count += 1
    return count


def overlay_size(
    overlay: Sequence[int] | Rows,
    background: Sequence[int] | Rows,
    q: float,
    count: int,
    ratio: Literal["area", "side"],
) -> tuple[int, int]:
    """Size in pixels, (width, height), that an overlay is resized to; its aspect is kept.

    Args:
        overlay: its own width and height.
        background: width and height of the image that it is pasted onto.
        q: size of all overlays together against the background, in (0, 1].
        count: k, how many overlays share it.
        ratio: `area` (paper's text): each overlay has the area q / k of the background. `side` (Algorithm 1's formula
            as released): each overlay is as large as fits into the background scaled by sqrt(q^2 / k).

    Returns:
        At least 1 pixel and never more than the background: what does not fit is scaled down.

    """
    (own_width, own_height), (width, height) = overlay, background
    fit = min(width / own_width, height / own_height)
    if ratio == "area":
        scale = min(fit, (q / count * width * height / (own_width * own_height)) ** 0.5)
    else:
        scale = fit * (q**2 / count) ** 0.5
    wide, high = round(own_width * scale), round(own_height * scale)
    return min(width, max(1, wide)), min(height, max(1, high))


def compose(background: Image.Image, overlays: Sequence[Image.Image], boxes: Rows) -> Image.Image:
    """Paste the overlays, opaque and in order, onto a copy of the background at its own resolution (Eq. 12).

    Args:
        background: RGB.
        overlays: RGB, one per box.
        boxes: (k, 4) pixels of the background; each overlay is resized (bicubic) to fill its box.

    """
    sewn = background.copy()
    for overlay, (left, top, right, bottom) in zip(overlays, boxes.tolist(), strict=True):
        sewn.paste(overlay.resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))
    return sewn
