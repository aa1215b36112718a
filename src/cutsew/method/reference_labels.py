"""Labels of the reference students: the lower and upper baselines of the method's student."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.method.random import keyed_rng

Truth = npt.NDArray[np.integer[Any]]
Logits = npt.NDArray[np.float32]

CERTAIN = 40.0
"""Logit of a label that is true for certain: in float32 its sigmoid is 1."""


def supervised(truth: Truth) -> Logits:
    """Logits of the true labels themselves, so that the loss is plain binary cross-entropy.

    Args:
        truth: (n, C): 1 positive; all else counts as negative.

    Returns:
        (n, C) float32: CERTAIN or -CERTAIN.

    """
    return np.where(truth == 1, CERTAIN, -CERTAIN).astype(np.float32)


def smoothed(truth: Truth, smoothing: float) -> Logits:
    """Logits of smoothed true labels: 1 - smoothing / 2 and smoothing / 2 (label smoothing, Szegedy et al. 2016).

    Args:
        truth: (n, C): 1 positive; all else counts as negative.
        smoothing: in (0, 1).

    Returns:
        (n, C) float32 logits.

    """
    high = math.log1p(-smoothing / 2) - math.log(smoothing / 2)
    z: Logits = np.where(truth == 1, high, -high).astype(np.float32)
    return z


def single_positive(truth: Truth, digests: Sequence[str], seed: int) -> Logits:
    """Logits of one random true label per image, all else assumed negative (Cole et al. 2021, "assume negative").

    Args:
        truth: (n, C): 1 positive. An image without one has no positive label.
        digests: n digests of the images' content: an image's draw depends on it and on the seed alone.
        seed: of the draws.

    Returns:
        (n, C) float32: CERTAIN or -CERTAIN.

    """
    chosen = np.zeros_like(truth)
    for row, digest in enumerate(digests):
        positives = np.flatnonzero(truth[row] == 1)
        if len(positives):
            chosen[row, keyed_rng(seed, "single positive", digest).choice(positives)] = 1
    return supervised(chosen)
