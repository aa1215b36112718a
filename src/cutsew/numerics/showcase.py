"""Which photos show best what a student learned: chosen by its own answers, without truth."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def surest(slabs: Iterable[Floats], classes: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Find for each class the photo with its highest logit; of equals the first.

    Args:
        slabs: (n, C) logits, slab after slab of N photos, N at least 1.
        classes: C.

    Returns:
        (C,) rows of these photos, and their (C, C) logits of all classes.

    """
    rows = np.zeros(classes, dtype=np.int64)
    logits = np.full((classes, classes), -np.inf, dtype=np.float32)
    own = np.arange(classes)
    start = 0
    for slab in slabs:
        first = slab.argmax(axis=0)
        better = slab[first, own] > logits[own, own]
        rows[better] = start + first[better]
        logits[better] = slab[first[better]]
        start += len(slab)
    return rows, logits


def choose_pairs(rows: npt.NDArray[np.int64], logits: Floats, most: int) -> list[tuple[int, int]]:
    """Pair each class with its surest photo, and this photo with the class that it names second, if any.

    Args:
        rows: as of `surest`.
        logits: likewise. A class is named from probability 1/2, logit 0.
        most: pairs to keep; classes come in order of their highest logit.

    Returns:
        Up to `most` pairs (row, class), none twice.

    """
    chosen: dict[tuple[int, int], None] = {}
    for name in np.argsort(-logits.diagonal(), kind="stable"):
        photo = int(rows[name])
        chosen[photo, int(name)] = None
        others = logits[name].copy()
        others[name] = -np.inf
        second = int(others.argmax())
        if others[second] >= 0:
            chosen[photo, second] = None
    return list(chosen)[:most]
