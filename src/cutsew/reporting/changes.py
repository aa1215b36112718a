"""What changed between the first and the last stage: per photo, and the photos at the ends of each class."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.numerics.score import sigmoid

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

NONE = -1
"""Index of a photo where there is none."""


@dataclass
class Changes:
    """What changed over n photos and C classes.

    Attributes:
        gained: (n,) classes that the last stage names and the first does not.
        lost: (n,) classes that the first names and the last does not.
        bits: (n,) how unsure the last stage is: the entropies of its C yes-or-no answers, summed, in bits.
        clearest: (C,) the photo of highest logit at the first stage.
        top: (C,) the photo of highest logit at the last stage.
        bottom: (C,) of the photos that the last stage names with the class, the least sure; NONE where it names none.
        present: (C,) photos that have the class: by truth where given, else by the last stage.
        hits: (C,) of these, those whose most likely class at the first stage it is.

    """

    gained: Ints
    lost: Ints
    bits: Floats
    clearest: Ints
    top: Ints
    bottom: Ints
    present: Ints
    hits: Ints

    @property
    def ease(self) -> Floats:
        """(C,) hits / present: how often a photo with the class is first called by it; NaN where none has it."""
        share: Floats = np.full(len(self.hits), np.nan)
        np.divide(self.hits, self.present, out=share, where=self.present > 0)
        return share


class _Best:
    """The photo of highest value per class, met block by block; of equal values the first."""

    def __init__(self, classes: int) -> None:
        self.value = np.full(classes, -np.inf)
        self.photo = np.full(classes, NONE, dtype=np.int64)

    def meet(self, values: Floats, start: int) -> None:
        rows = values.argmax(axis=0)
        best = values[rows, np.arange(values.shape[1])]
        better = best > self.value
        self.value[better] = best[better]
        self.photo[better] = rows[better] + start


def changes(
    blocks: Iterable[tuple[Floats, Floats]], threshold: float, truth: npt.NDArray[np.int8] | None = None
) -> Changes:
    """Compare two stages.

    Args:
        blocks: (n_1, C) logits of the first and of the last stage, then (n_2, C) of both, ...; at least one photo.
        threshold: probability from which a class counts as named.
        truth: (n_1 + n_2 + ..., C), 1 for present. It decides `present` and `hits` alone.

    """
    each: list[tuple[Ints, Ints, Floats]] = []
    start, counts = 0, np.zeros((2, 0), dtype=np.int64)
    best: list[_Best] = []
    for before, after in blocks:
        n, classes = after.shape
        if not best:
            counts, best = np.zeros((2, classes), dtype=np.int64), [_Best(classes) for _ in range(3)]
        p = sigmoid(after)
        was, now = sigmoid(before) >= threshold, p >= threshold
        each.append(((now & ~was).sum(axis=1), (was & ~now).sum(axis=1), entropy(p).sum(axis=1)))
        present = now if truth is None else truth[start : start + n] == 1
        called = np.zeros((n, classes), dtype=bool)
        called[np.arange(n), before.argmax(axis=1)] = True
        counts += np.stack([present.sum(axis=0), (present & called).sum(axis=0)])
        for kept, values in zip(best, (before, after, np.where(now, -after, -np.inf)), strict=True):
            kept.meet(values, start)
        start += n
    gained, lost, bits = (np.concatenate(parts) for parts in zip(*each, strict=True))
    return Changes(gained, lost, bits, *(kept.photo for kept in best), *counts)


def entropy(p: Floats) -> Floats:
    """Entropy of a yes-or-no answer of probability p, in bits: 0 at 0 and 1, 1 at 0.5."""
    q = np.clip(p.astype(np.float64), 1e-12, 1 - 1e-12)
    return -(q * np.log2(q) + (1 - q) * np.log2(1 - q))
