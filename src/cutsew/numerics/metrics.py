"""Measures against true labels: average precision, precision and recall, inversions.

Truth is an (N, C) array of int8: 1 positive, 0 negative, -1 not counted. Scores are (N, C), higher for more likely.
Only their order matters to average precision and inversions; logits are the better choice, since probabilities near 1
tie in float32. Percentages run from 0 to 100.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Truth = npt.NDArray[np.int8]
Named = npt.NDArray[np.bool_]

FEW = 10
"""Positives below which a class's AP jumps by tens of points with one photo more or less: `mAP_10` leaves it out."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall in percent, as usual in multi-label recognition (Wang et al., CVPR 2016).

    Attributes:
        CP: precision per class, mean over classes; a class that is never named has precision 0.
        CR: recall per class, mean over classes.
        CF1: harmonic mean of CP and CR (not the mean of the classes' F1).
        OP: precision over all pairs of photo and class.
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

    Equal scores make one rank, so that the order of photos does not matter.

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


def precision_recall(truth: Truth, named: Named) -> PrecisionRecall:
    """CP, CR, CF1, OP, OR, OF1 of the classes named per photo.

    Args:
        truth: (N, C); pairs marked -1 count neither as right nor as wrong.
        named: (N, C), which classes are named.

    """
    positive = truth == 1
    used = positive.any(axis=0)
    if not used.any():
        return PrecisionRecall(*[float("nan")] * 6)
    right = (positive & named).sum(axis=0)
    claimed = (named & (truth >= 0)).sum(axis=0)
    true = positive.sum(axis=0)
    per_class = _rates(
        float((right[used] / np.maximum(claimed[used], 1)).mean()), float((right[used] / true[used]).mean())
    )
    overall = _rates(float(right.sum() / max(claimed.sum(), 1)), float(right.sum() / true.sum()))
    return PrecisionRecall(*per_class, *overall)


def f1(truth: Truth, named: Named) -> Floats:
    """F1 of each class, the harmonic mean of its precision and recall, from the (N, C) classes named per photo.

    Returns:
        (C,) float64 in percent; NaN for a class without a counted positive.

    """
    positives = (truth == 1).sum(axis=0)
    right = ((truth == 1) & named).sum(axis=0)
    claimed = (named & (truth >= 0)).sum(axis=0)
    return np.where(positives > 0, 200 * right / np.maximum(positives + claimed, 1), np.nan)


def named_at(probabilities: Floats, threshold: float) -> Named:
    """Return which classes of (N, C) are named: those with a probability of at least `threshold`."""
    return probabilities >= threshold


def named_top(scores: Floats, n: int) -> Named:
    """Name the n classes of highest score in each photo of (N, C) (all if n > C); of equal scores the earlier class."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    named = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(named, order, True, axis=1)
    return named


def inversions(truth: Truth, scores: Floats) -> npt.NDArray[np.int64]:
    """Count per class the pairs of photos whose negative one scores above the positive one (paper, 4.3.4, Table 6).

    The pairs are photos of one class, not classes of one photo: the square root keeps the order of a photo's own
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
