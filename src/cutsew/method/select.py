"""Choosing images by score: patches to paste (paper, Eq. 10), and examples for the report.

- Sewing: the salient images that are pasted onto others (paper, Eq. 10).
- Which images show best what a student learned: chosen by its own answers, without truth.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


SMALL, LARGE = 1000, 5717
"""Training images up to which the small share holds, and from which the paper's does (VOC 2012's)."""

SMALL_SHARE, LARGE_SHARE = 1.3, 0.7
"""k C / N: a patch set of few distinct images is worse than none, so small sets need a larger share."""


def automatic_k(images: int, classes: int) -> int:
    """Return k for N training images and C classes: ceil(share N / C), at least 1 and at most N (not the paper's).

    The share is SMALL_SHARE up to SMALL images and LARGE_SHARE from LARGE on; between them it falls with log N.
    """
    fraction = math.log(min(max(images, SMALL), LARGE) / SMALL) / math.log(LARGE / SMALL)
    share = SMALL_SHARE + (LARGE_SHARE - SMALL_SHARE) * fraction
    return min(images, max(1, math.ceil(round(share * images / classes, 9))))


def top_k(zero_shot: Iterable[Floats], k: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """P_i: the k images with the largest Z0 of each class (Eq. 10).

    Args:
        zero_shot: logits Z0 slab by slab, (n, C) each, N images together; only one slab is in memory at a time.
        k: images per class, 1..N.

    Returns:
        (C, k) indices into N, most salient first, and their logits; of equal images the first. The deduplicated union
        of the indices is P.

    Raises:
        ValueError: k is more than N.

    """
    best: Any = None
    chosen: Any = None
    seen = 0
    for slab in zero_shot:
        index = np.arange(seen, seen + len(slab))
        seen += len(slab)
        if best is None:
            best, chosen = slab[:0], np.empty((0, slab.shape[1]), np.int64)
        entering = slice(None) if len(best) < k else ~(slab <= best[-1]).all(axis=1)
        best = np.concatenate([best, slab[entering]])
        chosen = np.concatenate([chosen, np.repeat(index[entering, None], slab.shape[1], axis=1)])
        order = np.argsort(-best, axis=0, kind="stable")[:k]
        best, chosen = np.take_along_axis(best, order, axis=0), np.take_along_axis(chosen, order, axis=0)
    if best is None or k > seen:
        raise ValueError(f"k = {k} is more than the {seen} images")
    return chosen.T, best.T


Logits = npt.NDArray[np.float32]


def argmax_per_class(slabs: Iterable[Logits], classes: int) -> tuple[npt.NDArray[np.int64], Logits]:
    """Find for each class the image with its highest logit; of equals the first.

    Args:
        slabs: (n, C) logits, slab after slab of N images, N at least 1.
        classes: C.

    Returns:
        (C,) rows of these images, and their (C, C) logits of all classes.

    """
    rows = np.zeros(classes, dtype=np.int64)
    logits = np.full((classes, classes), -np.inf, dtype=np.float32)
    local_values = np.arange(classes)
    start = 0
    for slab in slabs:
        first = slab.argmax(axis=0)
        better = slab[first, local_values] > logits[local_values, local_values]
        rows[better] = start + first[better]
        logits[better] = slab[first[better]]
        start += len(slab)
    return rows, logits


def select_explanations(rows: npt.NDArray[np.int64], logits: Logits, most: int) -> list[tuple[int, int]]:
    """Pair each class with its most confident image, and that image with its second predicted class, if any.

    Args:
        rows: as of `argmax_per_class`.
        logits: of the same images. A class is predicted from probability 1/2, logit 0.
        most: pairs to keep; classes come in order of their highest logit.

    Returns:
        Up to `most` pairs (row, class), none twice.

    """
    chosen: dict[tuple[int, int], None] = {}
    for name in np.argsort(-logits.diagonal(), kind="stable"):
        image = int(rows[name])
        chosen[image, int(name)] = None
        masked = logits[name].copy()
        masked[name] = -np.inf
        second = int(masked.argmax())
        if masked[second] >= 0:
            chosen[image, second] = None
    return list(chosen)[:most]
