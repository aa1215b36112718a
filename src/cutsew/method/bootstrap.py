"""Paired bootstrap over images: how certain a difference in mAP is (Efron and Tibshirani, 1993, chapter 13)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cutsew.method.metrics import Floats, Truth
from cutsew.method.random import keyed_rng

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
