"""What can be said without truth: how much a stage names, how sure it is, and how far two stages agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.floating[Any]]

LONGEST = 80
"""Characters of class names in a remark."""

BINS = 20
"""Bins of the confidence histogram, of equal width over [0, 1]."""


@dataclass(frozen=True)
class Naming:
    """How a stage names, over the photos of one split.

    Attributes:
        labels: (C,) photos that each class is named in.
        labels_per_image: mean number of classes named in a photo.
        confidence: mean probability of a photo's most likely class.
        top1: (BINS,) photos by the probability of their most likely class.
        every: (BINS,) pairs of photo and class by their probability.

    """

    labels: npt.NDArray[np.int64]
    labels_per_image: float
    confidence: float
    top1: npt.NDArray[np.int64]
    every: npt.NDArray[np.int64]


def naming(probabilities: Floats, threshold: float) -> Naming:
    """Describe the (N, C) probabilities of one stage, N > 0; a class counts as named from `threshold` on."""
    labels = (probabilities >= threshold).sum(axis=0)
    best = probabilities.max(axis=1)
    return Naming(
        labels=labels,
        labels_per_image=float(labels.sum() / len(probabilities)),
        confidence=float(best.mean(dtype=np.float64)),
        top1=np.histogram(best, bins=BINS, range=(0, 1))[0],
        every=np.histogram(probabilities, bins=BINS, range=(0, 1))[0],
    )


def degenerate(labels: npt.NDArray[np.int64], photos: int, classes: Sequence[str]) -> str:
    """Say in which way a stage's labels tell nothing apart; empty where they do tell photos apart.

    Args:
        labels: (C,) photos that each class is named in.
        photos: N, more than one.
        classes: C names.

    """
    if photos < 2:
        return ""
    if not labels.any():
        return "no photo has a label"
    if np.isin(labels, (0, photos)).all():
        named = ", ".join(name for name, count in zip(classes, labels, strict=True) if count)
        return (
            f"every photo has the same labels ({named if len(named) <= LONGEST else f'{(labels > 0).sum()} classes'})"
        )
    if (labels > 0).sum() == 1 < len(labels):
        return f"{classes[int(labels.argmax())]} is the only class that is named"
    return ""


def agreement(first: Floats, second: Floats, threshold: float) -> Floats:
    """Compare two stages' (N, C) probabilities photo by photo.

    Photo by photo, so that the means over many photos can be taken slice by slice.

    Returns:
        (N, 3) float64: 1 where both have the same most likely class (the earlier of equal ones), else 0; Jaccard index
        of the two sets of named classes, 1 where both are empty; Spearman's rank correlation of the two orders of the
        classes, NaN where a stage gives all classes the same probability.

    """
    top1 = first.argmax(axis=1) == second.argmax(axis=1)
    a, b = first >= threshold, second >= threshold
    union = (a | b).sum(axis=1)
    jaccard = np.where(union > 0, (a & b).sum(axis=1) / np.maximum(union, 1), 1.0)
    return np.column_stack((top1, jaccard, _spearman(first, second)))


def _spearman(first: Floats, second: Floats) -> Floats:
    """Pearson's correlation of the ranks in each row; equal values share their mean rank."""
    a, b = (pd.DataFrame(x).rank(axis=1).to_numpy() - (x.shape[1] + 1) / 2 for x in (first, second))
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    correlation = np.full(len(a), np.nan)
    np.divide((a * b).sum(axis=1), spread, out=correlation, where=spread > 0)
    return correlation
