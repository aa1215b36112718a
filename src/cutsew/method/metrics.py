"""Metrics with and without true labels, and the bootstrap of a difference.

- Measures against true labels: average precision, precision and recall, inversions.
- What can be said without truth: how much a stage names, how sure it is, and how far two stages agree.
- Paired bootstrap over images: how sure a difference in mAP is (Efron and Tibshirani, 1993, chapter 13).

Truth is an (N, C) array of int8: 1 positive, 0 negative, -1 not counted. Scores are (N, C), higher for more likely.
Only their order matters to average precision and inversions; logits are the better choice, since probabilities near 1
tie in float32. Percentages run from 0 to 100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from cutsew.method.random import keyed_rng

Floats = npt.NDArray[np.floating[Any]]
Truth = npt.NDArray[np.int8]
Predicted = npt.NDArray[np.bool_]

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


def precision_recall(truth: Truth, named: Predicted) -> PrecisionRecall:
    """CP, CR, CF1, OP, OR, OF1 of the classes named per image.

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


def f1(truth: Truth, named: Predicted) -> Floats:
    """F1 of each class, the harmonic mean of its precision and recall, from the (N, C) classes named per image.

    Returns:
        (C,) float64 in percent; NaN for a class without a counted positive.

    """
    positives = (truth == 1).sum(axis=0)
    right = ((truth == 1) & named).sum(axis=0)
    claimed = (named & (truth >= 0)).sum(axis=0)
    return np.where(positives > 0, 200 * right / np.maximum(positives + claimed, 1), np.nan)


def predict_top_k(scores: Floats, n: int) -> Predicted:
    """Name the n classes of highest score in each image of (N, C) (all if n > C); of equal scores the earlier class."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    named = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(named, order, True, axis=1)
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


@dataclass(frozen=True)
class LabelStats:
    """How a stage names, over the images of one split.

    Attributes:
        labels: (C,) images that each class is named in.
        labels_per_image: mean number of classes named in an image.
        confidence: mean probability of an image's most likely class.
        top1: (BINS,) images by the probability of their most likely class.
        every: (BINS,) pairs of image and class by their probability.

    """

    labels: npt.NDArray[np.int64]
    labels_per_image: float
    confidence: float
    top1: npt.NDArray[np.int64]
    every: npt.NDArray[np.int64]


def label_stats(probabilities: Floats, named: Predicted) -> LabelStats:
    """Describe the (N, C) probabilities of one stage and its labels, N > 0."""
    labels = named.sum(axis=0)
    best = probabilities.max(axis=1)
    return LabelStats(
        labels=labels,
        labels_per_image=float(labels.sum() / len(probabilities)),
        confidence=float(best.mean(dtype=np.float64)),
        top1=np.histogram(best, bins=BINS, range=(0, 1))[0],
        every=np.histogram(probabilities, bins=BINS, range=(0, 1))[0],
    )


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


def agreement(first: Floats, second: Floats, first_named: Predicted, second_named: Predicted) -> Floats:
    """Compare two stages' (N, C) probabilities and labels, image by image.

    Image by image, so that the means over many images can be taken slice by slice.

    Returns:
        (N, 3) float64: 1 where both have the same most likely class (the earlier of equal ones), else 0; Jaccard index
        of the two sets of named classes, 1 where both are empty; Spearman's rank correlation of the two orders of the
        classes, NaN where a stage gives all classes the same probability.

    """
    top1 = first.argmax(axis=1) == second.argmax(axis=1)
    union = (first_named | second_named).sum(axis=1)
    jaccard = np.where(union > 0, (first_named & second_named).sum(axis=1) / np.maximum(union, 1), 1.0)
    return np.column_stack((top1, jaccard, _spearman(first, second)))


def _spearman(first: Floats, second: Floats) -> Floats:
    """Pearson's correlation of the ranks in each row; equal values share their mean rank."""
    a, b = (pd.DataFrame(x).rank(axis=1).to_numpy() - (x.shape[1] + 1) / 2 for x in (first, second))
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    correlation = np.full(len(a), np.nan)
    np.divide((a * b).sum(axis=1), spread, out=correlation, where=spread > 0)
    return correlation


AT_ONCE = 50
"""Draws whose weights are in memory together."""


class Difference(NamedTuple):
    """A difference in mAP, in points: as measured, and the ends of its 95 % interval."""

    points: float
    low: float
    high: float


def difference(
    truth: Truth, first: Sequence[Floats], second: Sequence[Floats], draws: int = 1000, seed: int = 0
) -> Difference:
    """Mean mAP of the second runs less that of the first, with an interval over images drawn with replacement.

    Both are measured on the same draws, so that what makes an image easy for both does not widen the interval. Runs of
    several seeds are averaged within each draw.

    Args:
        truth: (N, C), 1 positive, 0 negative, -1 not counted.
        first: (N, C) scores of each run.
        second: the same for the second system.
        draws: how many.
        seed: of the draws.

    """
    rng = keyed_rng(seed, "bootstrap")
    images = len(truth)
    samples = [_means(truth, first, second, np.ones((1, images), dtype=np.float32))]
    for start in tqdm(range(0, draws, AT_ONCE), desc="bootstrap", unit="draws", unit_scale=AT_ONCE):
        count = min(AT_ONCE, draws - start)
        weights = rng.multinomial(images, np.full(images, 1 / images), size=count).astype(np.float32)
        samples.append(_means(truth, first, second, weights))
    low, high = np.nanquantile(np.concatenate(samples[1:]), [0.025, 0.975])
    return Difference(float(samples[0][0]), float(low), float(high))


def weighted_map(truth: Truth, scores: Floats, weights: Floats) -> Floats:
    """MAP of images that count several times or not at all.

    Args:
        truth: (N, C).
        scores: (N, C); of equal ones the earlier image comes first.
        weights: (R, N), how often each image counts in each of R draws.

    Returns:
        (R,) in percent, the mean over the classes that have a counted positive in the draw.

    """
    ap = np.full((truth.shape[1], len(weights)), np.nan)
    for c in range(truth.shape[1]):
        counted = np.flatnonzero(truth[:, c] >= 0)
        order = counted[np.argsort(-scores[counted, c], kind="stable")]
        weight = weights[:, order].astype(np.float64)
        right = weight * (truth[order, c] == 1)
        precision = np.cumsum(right, axis=1) / np.maximum(np.cumsum(weight, axis=1), 1e-12)
        positives = right.sum(axis=1)
        np.divide(100 * (right * precision).sum(axis=1), positives, out=ap[c], where=positives > 0)
    return np.nanmean(ap, axis=0)  # type: ignore[no-any-return]


def _means(truth: Truth, first: Sequence[Floats], second: Sequence[Floats], weights: Floats) -> Floats:
    one, second_mean = (np.mean([weighted_map(truth, z, weights) for z in runs], axis=0) for runs in (first, second))
    return second_mean - one  # type: ignore[no-any-return]
