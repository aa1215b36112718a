"""Decision thresholds: one per class, chosen without labels or, for one rule, with them.

Logits are (N, C), a student's on N images; their sigmoid is the probability. A threshold is a probability in (0, 1):
a class is named in an image whose probability is at least it. It stands halfway, in logits, between two images that
differ, so that rounding does not move an image across.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Polynomial
from scipy.special import erfinv
from threadpoolctl import threadpool_limits

from cutsew.method.score import sigmoid

Floats = npt.NDArray[np.floating[Any]]
Truth = npt.NDArray[np.int8]

FIXED = 0.5
"""The threshold of rule `fixed`, and of classes for which another rule finds none."""

ROUNDING = 1e-6
"""How far below the least of all probabilities a threshold is set that names every image."""

FEW = 40
"""Held-out images below which a student's thresholds are set by `count_few`."""

RAREST = 1e-3
"""Share of images that `count_few` takes a class to have at least, and to lack."""

FEWEST = 20
"""Images below which two Gaussians are not fitted."""


def expected_share(zero_shot: Floats, refined: Floats) -> Floats:
    """Expect a share of images per class, without labels: between a floor and a ceiling.

    Zero-shot probabilities are a softmax, so that they sum to one label an image however many there are: mostly too
    few. Refined labels stem from the best of many crops and keep each one's false alarms: mostly too many. The
    geometric mean of the two is taken. Not for labels that `targets.labels_per_image` rescaled to a number, be it set
    or estimated: their mean probabilities are what is expected, and the mean with zero-shot would halve the excess a
    second time (on the demo it named 1.24 labels an image where the estimate is 1.7 and the truth 2.4).

    Args:
        zero_shot: (C,) mean probabilities over the training images, in [0, 1].
        refined: (C,) the same for refined labels.

    Returns:
        (C,) shares in [0, 1]. Measured error: over all classes 2.1 labels an image where 2.4 are true (the demo), 1.1
        where 1.6 are (5,640 images of VOC 2012, CLIP RN50x64, fused labels in place of refined ones).

    """
    return np.sqrt(zero_shot * refined)


def count(logits: Floats, share: Floats) -> Floats:
    """Name each class in as many images as expected: thresholds between the last image named and the first not.

    Args:
        logits: (N, C), N > 0.
        share: (C,) expected share of images, in [0, 1].

    Returns:
        (C,) thresholds. Of round(share N) images; images that tie with the last of them are named too. Where that is
        none, halfway between the highest probability and 1.

    """
    target = np.rint(share * len(logits)).astype(int)
    return np.array([_below(np.sort(z)[::-1], k) for z, k in zip(logits.T, target, strict=True)])


def count_few(logits: Floats, share: Floats) -> Floats:
    """Count as `count`, on images too few to rank: by quantiles of a Gaussian fitted to each class's logits.

    Of twelve images, a class expected in one of thirty would be a label of none, and one expected in one of fifteen of
    the best, whatever its logit.

    Args:
        logits: (N, C), N > 1.
        share: (C,) expected share of images, in [0, 1].

    Returns:
        (C,) thresholds. Measured on 97 photos of VOC and COCO with one student of 48, 12 to 45 others drawn 150 times:
        CF1 48.2 instead of 38.6 (12), 50.4 instead of 46.0 (30), 51.0 instead of 48.0 (45); OF1 changes by up to 1.
        Of eight rules compared on these photos, it did best at the expected number of labels.

    """
    z = logits.astype(np.float64)
    quantile = np.sqrt(2) * erfinv(1 - 2 * np.clip(share.astype(np.float64), RAREST, 1 - RAREST))
    return np.clip(sigmoid(z.mean(axis=0) + z.std(axis=0, ddof=1) * quantile), ROUNDING, 1 - ROUNDING)


def mixture(logits: Floats) -> Floats:
    """Fit two Gaussians to each class's logits; from the point on where the upper one is likelier, the class is named.

    Args:
        logits: (N, C).

    Returns:
        (C,) thresholds; NaN where fewer than FEWEST images are there, all logits are equal, or neither Gaussian
        overtakes the other between their means (one is so wide or so heavy that it covers the other).

    """
    with threadpool_limits(1):  # more threads wait for each other, and sums differ with their number
        return np.array([_crossing(z.astype(np.float64)) for z in logits.T])


def best_f1(truth: Truth, logits: Floats) -> Floats:
    """Choose the threshold of highest F1 per class; this one uses labels.

    Args:
        truth: (N, C) int8: 1 positive, 0 negative, -1 not counted.
        logits: (N, C).

    Returns:
        (C,) thresholds, the highest of equally good ones; NaN for a class without a positive.

    """
    return np.array([_best(truth[:, c], logits[:, c]) for c in range(logits.shape[1])])


def named(logits: Floats, thresholds: Floats | float) -> npt.NDArray[np.bool_]:
    """Return which classes of (..., C) logits are predicted, at one threshold or (C,).

    Every label is decided here, in float64, so that tables, metrics, report and exports have the same ones: in float32,
    a probability near 1 may be rounded up to its threshold.
    """
    return sigmoid(logits.astype(np.float64)) >= thresholds


def _below(descending: Floats, k: int) -> float:
    """Set a threshold below the k-th of some logits and all that equal it."""
    top = float(sigmoid(descending[:1].astype(np.float64))[0])
    if k == 0:
        return (top + 1) / 2
    last = float(descending[k - 1])
    rest = descending[descending < last]
    if not len(rest):
        return float(sigmoid(np.array(last))) * (1 - ROUNDING)
    return float(sigmoid(np.array((last + float(rest[0])) / 2)))


def _crossing(z: Floats) -> float:
    if len(z) < FEWEST or np.ptp(z) == 0:
        return float("nan")
    from cutsew.method.label_count import fit_two_gaussians  # noqa: PLC0415 - scikit-learn takes a second to import

    weights, mean, variance = fit_two_gaussians(z)
    low, high = np.argsort(mean, kind="stable")
    log_density = [
        Polynomial([np.log(w) - np.log(v) / 2]) - Polynomial([-m, 1]) ** 2 / (2 * v)
        for w, m, v in zip(weights, mean, variance, strict=True)
    ]
    gain = (log_density[high] - log_density[low]).trim()
    if gain(mean[low]) >= 0 or gain(mean[high]) <= 0:
        return float("nan")
    (crossing,) = (x.real for x in gain.roots() if mean[low] < x.real < mean[high])
    return float(sigmoid(np.array(crossing)))


def _best(truth: npt.NDArray[np.int8], z: Floats) -> float:
    counted = truth >= 0
    order = np.argsort(-z[counted], kind="stable")
    positive, sorted_z = truth[counted][order] == 1, z[counted][order]
    if not positive.any():
        return float("nan")
    f1 = 2 * positive.cumsum() / (np.arange(1, len(order) + 1) + positive.sum())
    f1[:-1][sorted_z[:-1] == sorted_z[1:]] = -1  # equal logits are named together
    return _below(sorted_z, int(f1.argmax()) + 1)
