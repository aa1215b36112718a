"""Metrics with and without true labels.

- Measures against true labels: average precision, precision and recall, inversions.
- What can be said without truth: how much a stage names, how sure it is, and how far two stages agree.

Measures of classes (average precision, inversions, `Counts`) can be computed block by block of classes, measures of
images (`Confidence`, `agreement`) block by block of images, so that no stage's (N, C) array has to be in memory.

Truth is an (N, C) array of int8: 1 positive, 0 negative, -1 not counted. Scores are (N, C), higher for more likely.
Only their order matters to average precision and inversions; logits are the better choice, since probabilities near 1
tie in float32. Percentages run from 0 to 100.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.floating[Any]]
Truth = npt.NDArray[np.int8]
Predicted = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

FEW = 10
"""Positives below which a class's AP jumps by tens of points with one image more or less: `mAP_10` leaves it out."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall in percent, as is standard in multi-label recognition (Wang et al., CVPR 2016).

    Attributes:
        CP: precision per class, mean over classes; a class that is never named has precision 0.
        CR: recall per class, mean over classes.
        CF1: harmonic mean of CP and CR (not the mean of the classes' F1).
        OP: precision over all pairs of image and class.
        OR: recall over all pairs.
        OF1: harmonic mean of OP and OR.

    Classes without a counted positive are left out of the class means, as they are of mAP. All are NaN where no
    class has one.

    """

    CP: float
    CR: float
    CF1: float
    OP: float
    OR: float
    OF1: float


def average_precision(truth: Truth, scores: Floats) -> Floats:
    """Non-interpolated average precision per class: sum over ranks of (R_n - R_(n-1)) P_n.

    Equal scores make one rank, so that the order of images does not matter.

    Returns:
        (C,) float64 in percent; NaN for a class without a counted positive.

    """
    from sklearn.metrics import average_precision_score  # noqa: PLC0415 - a second, which --help can do without

    ap = np.full(truth.shape[1], np.nan)
    for c in range(truth.shape[1]):
        counted = truth[:, c] >= 0
        positive = truth[counted, c] == 1
        if positive.any():
            ap[c] = 100 * average_precision_score(positive, scores[counted, c])
    return ap


def mean_average_precision(ap: Floats) -> float:
    """Mean of the classes that have an average precision; NaN where none has."""
    return float(np.nanmean(ap)) if np.isfinite(ap).any() else float("nan")


class Counts(NamedTuple):
    """Named pairs of image and class, counted per class; pairs whose truth is -1 count neither as right nor as wrong.

    Attributes:
        right: (C,) images that are named and have the class.
        claimed: (C,) images with known truth that are named.
        positive: (C,) images that have the class.

    """

    right: Ints
    claimed: Ints
    positive: Ints

    @classmethod
    def of(cls, truth: Truth, named: Predicted) -> "Counts":
        """Count the (N, C) classes named per image."""
        positive = truth == 1
        return cls((positive & named).sum(axis=0), (named & (truth >= 0)).sum(axis=0), positive.sum(axis=0))

    @classmethod
    def joined(cls, blocks: "Sequence[Counts]") -> "Counts":
        """Join the counts of blocks of classes."""
        return cls(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))

    def precision_recall(self) -> PrecisionRecall:
        """CP, CR, CF1, OP, OR, OF1."""
        right, claimed, positive = self
        used = positive > 0
        if not used.any():
            return PrecisionRecall(*[float("nan")] * 6)
        per_class = _rates(
            float((right[used] / np.maximum(claimed[used], 1)).mean()), float((right[used] / positive[used]).mean())
        )
        overall = _rates(float(right.sum() / max(claimed.sum(), 1)), float(right.sum() / positive.sum()))
        return PrecisionRecall(*per_class, *overall)

    def f1(self) -> Floats:
        """F1 of each class, the harmonic mean of its precision and recall.

        Returns:
            (C,) float64 in percent; NaN for a class without a counted positive.

        """
        total = np.maximum(self.positive + self.claimed, 1)
        return np.where(self.positive > 0, 200 * self.right / total, np.nan)


def likeliest(scores: Floats, n: int) -> npt.NDArray[np.int32]:
    """Return the n classes of highest score in each image of (N, C) (all if n > C); of equal scores the earlier class.

    Returns:
        (N, min(n, C)) int32.

    """
    return np.argsort(-scores, axis=1, kind="stable")[:, :n].astype(np.int32)


def named_likeliest(classes: npt.NDArray[np.int32], block: slice) -> Predicted:
    """Return what `likeliest` names among the classes of a block: (N, stop - start) bool."""
    named = np.zeros((len(classes), block.stop - block.start), dtype=bool)
    for column in classes.T:
        (rows,) = np.nonzero((column >= block.start) & (column < block.stop))
        named[rows, column[rows] - block.start] = True
    return named


def inversions(truth: Truth, scores: Floats) -> npt.NDArray[np.int64]:
    """Count per class the pairs of images whose negative one scores above the positive one (paper, 4.3.4, Table 6).

    The pairs are images of one class, not classes of one image: the square root keeps the order of an image's own
    classes exactly, while the paper finds its inversions "almost unchanged". Equal scores are no inversion.

    Returns:
        (C,) int64 counts.

    """
    counts = np.zeros(truth.shape[1], dtype=np.int64)
    for c in range(truth.shape[1]):
        positives = np.sort(scores[truth[:, c] == 1, c])
        counts[c] = np.searchsorted(positives, scores[truth[:, c] == 0, c], side="left").sum()
    return counts


def _rates(precision: float, recall: float) -> tuple[float, float, float]:
    """Return precision, recall and their harmonic mean in percent."""
    both = precision + recall
    return 100 * precision, 100 * recall, 200 * precision * recall / both if both > 0 else 0.0


LONGEST = 80
"""Characters of class names in a remark."""

BINS = 20
"""Bins of the confidence histogram, of equal width over [0, 1]."""


@dataclass
class Confidence:
    """The probabilities of one stage, counted block by block of images.

    Attributes:
        images: images counted.
        total: sum of the probabilities of the images' most likely classes.
        top1: (BINS,) images by the probability of their most likely class.
        every: (BINS,) pairs of image and class by their probability.

    """

    images: int = 0
    total: float = 0.0
    top1: Ints = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    every: Ints = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))

    def add(self, probabilities: Floats) -> None:
        """Count the (n, C) probabilities of n images."""
        best = probabilities.max(axis=1)
        self.images += len(best)
        self.total += float(best.sum(dtype=np.float64))
        self.top1 += np.histogram(best, bins=BINS, range=(0, 1))[0]
        self.every += np.histogram(probabilities, bins=BINS, range=(0, 1))[0]

    @property
    def mean(self) -> float:
        """Mean probability of an image's most likely class."""
        return self.total / self.images


def describe_degenerate(labels: npt.NDArray[np.int64], images: int, classes: Sequence[str]) -> str:
    """Describe how a stage's labels are degenerate; empty if they are not.

    Args:
        labels: (C,) images that each class is named in.
        images: N, more than one.
        classes: C names.

    """
    if images < 2:
        return ""
    if not labels.any():
        return "no image has a label"
    if np.isin(labels, (0, images)).all():
        named = ", ".join(name for name, count in zip(classes, labels, strict=True) if count)
        return (
            f"every image has the same labels ({named if len(named) <= LONGEST else f'{(labels > 0).sum()} classes'})"
        )
    if (labels > 0).sum() == 1 < len(labels):
        return f"{classes[int(labels.argmax())]} is the only class that is named"
    return ""


class Ranked(NamedTuple):
    """One stage's answers to some images, as `agreement` compares them.

    Attributes:
        top1: (n,) the most likely class; the earlier of equal ones.
        named: (n, C) classes that are named.
        ranks: (n, C) ranks of the classes in each image, less their mean; equal probabilities share their mean rank.
        spread: (n,) sum of the squared ranks; 0 where all classes have the same probability.

    """

    top1: npt.NDArray[np.intp]
    named: Predicted
    ranks: Floats
    spread: Floats

    @classmethod
    def of(cls, probabilities: Floats, named: Predicted) -> "Ranked":
        """Rank the (n, C) probabilities of n images."""
        ranks = pd.DataFrame(probabilities).rank(axis=1).to_numpy() - (probabilities.shape[1] + 1) / 2
        return cls(probabilities.argmax(axis=1), named, ranks, (ranks**2).sum(axis=1))


def agreement(first: Ranked, second: Ranked) -> Floats:
    """Compare two stages' answers to the same n images, image by image.

    Returns:
        (n, 3) float64: 1 where both have the same most likely class, else 0; Jaccard index of the two sets of named
        classes, 1 where both are empty; Spearman's rank correlation of the two orders of the classes, NaN where a stage
        gives all classes the same probability.

    """
    union = (first.named | second.named).sum(axis=1)
    both = (first.named & second.named).sum(axis=1)
    jaccard = np.where(union > 0, both / np.maximum(union, 1), 1.0)
    spread = np.sqrt(first.spread * second.spread)
    correlation = np.full(len(spread), np.nan)
    np.divide((first.ranks * second.ranks).sum(axis=1), spread, out=correlation, where=spread > 0)
    return np.column_stack((first.top1 == second.top1, jaccard, correlation))
