"""What the charts count over all photos of a split, slice by slice, so that only a slice is in memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.numerics.score import sigmoid

Floats = npt.NDArray[np.floating[Any]]
Truth = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]

MOST_COUNTED = 10
"""Labels per photo that are counted one by one; photos with more share a last bin."""

EDGES: Floats = np.linspace(-14, 14, 57)
"""Edges of the logits' histogram; what lies beyond falls into the outer bins (clamped probabilities end at 13.8)."""

BINS = 10
"""Bins of the calibration, of equal width over [0, 1]."""


@dataclass
class Labels:
    """Sets of labels, counted.

    Attributes:
        sizes: (MOST_COUNTED + 2,) photos with 0, 1, ... labels; the last bin holds those with more.
        together: (C, C) photos that have both classes; the diagonal, photos that have the class.
        total: labels of all photos.

    """

    sizes: Ints
    together: Ints
    total: int = 0

    @classmethod
    def of(cls, classes: int) -> "Labels":
        """Begin with nothing counted."""
        return cls(np.zeros(MOST_COUNTED + 2, dtype=np.int64), np.zeros((classes, classes), dtype=np.int64))

    def add(self, has: npt.NDArray[np.bool_]) -> None:
        """Count the (n, C) sets of n photos."""
        sizes = has.sum(axis=1)
        self.sizes += np.bincount(np.minimum(sizes, MOST_COUNTED + 1), minlength=MOST_COUNTED + 2)
        self.together += (has.T.astype(np.float32) @ has.astype(np.float32)).astype(np.int64)
        self.total += int(sizes.sum())

    @property
    def photos(self) -> int:
        """Photos counted."""
        return int(self.sizes.sum())

    @property
    def mean(self) -> float:
        """Labels per photo; NaN for no photos."""
        return self.total / self.photos if self.photos else float("nan")

    def given(self) -> Floats:
        """(C, C) share, in [0, 1], of the photos with the row's class that have the column's too; NaN for no photo."""
        own = np.diag(self.together).astype(np.float64)[:, None]
        share: Floats = np.full(self.together.shape, np.nan)
        np.divide(self.together, own, out=share, where=own > 0)
        return share


@dataclass
class Tally:
    """One stage's answers, counted.

    Attributes:
        labels: what it names.
        values: (len(EDGES) - 1,) pairs of photo and class by logit.
        value_sum: of all logits.
        sure: (BINS,) sum of the probabilities of counted pairs.
        true: (BINS,) counted pairs that are true.
        counted: (BINS,) pairs with known truth.

    """

    labels: Labels
    values: Ints = field(default_factory=lambda: np.zeros(len(EDGES) - 1, dtype=np.int64))
    value_sum: float = 0.0
    sure: Floats = field(default_factory=lambda: np.zeros(BINS))
    true: Ints = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    counted: Ints = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))

    def add(self, z: Floats, truth: Truth, threshold: float) -> None:
        """Count n photos: (n, C) logits and truth (1, 0, or -1 for not known); named are probabilities >= threshold."""
        p = sigmoid(z)
        self.labels.add(p >= threshold)
        self.values += np.histogram(np.clip(z, EDGES[0], EDGES[-1]), bins=EDGES)[0]
        self.value_sum += float(z.sum(dtype=np.float64))
        known = truth >= 0
        bins = np.minimum((p[known] * BINS).astype(np.int64), BINS - 1)
        self.sure += np.bincount(bins, p[known], minlength=BINS)
        self.true += np.bincount(bins[truth[known] == 1], minlength=BINS)
        self.counted += np.bincount(bins, minlength=BINS)

    @property
    def mean_value(self) -> float:
        """Mean logit."""
        return self.value_sum / max(int(self.values.sum()), 1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, in [0, 1]: mean over pairs of |share that is true - mean probability| by bin."""
        off = np.abs(self.true - self.sure).sum()
        return float(off / max(int(self.counted.sum()), 1))


def tally(blocks: Iterable[Floats], truth: Truth, threshold: float) -> Tally:
    """Count one stage.

    Args:
        blocks: its logits, (n_1, C), (n_2, C), ...
        truth: (n_1 + n_2 + ..., C) in the same order.
        threshold: probability from which a class counts as named.

    """
    counted = Tally(Labels.of(truth.shape[1]))
    start = 0
    for z in blocks:
        counted.add(z, truth[start : start + len(z)], threshold)
        start += len(z)
    return counted


def tally_truth(truth: Truth) -> Labels | None:
    """Count the true labels of the photos that have any known; None where there are none."""
    known = truth[(truth >= 0).any(axis=1)]
    labels = Labels.of(truth.shape[1])
    labels.add(known == 1)
    return labels if len(known) else None
