"""Cutting: fusing the answers of all views into one (paper, Eq. 6-7)."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cutsew.numerics.score import logit, sigmoid

WHOLE = -1
"""The winner's index where the whole photo's own answer stands."""

Space = Literal["logit", "probability"]


def fuse_gated(
    zero_shot: npt.NDArray[np.floating[Any]], crops: npt.NDArray[np.floating[Any]], gate: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """z <- z_k where S(z_k) - S(z) >= gate, for k = 1..M, from z = z_0: the released code's rule, without alpha.

    Args:
        zero_shot: (N, C) logits Z0 of the whole photos.
        crops: (M, N, C) logits Z^k of the crops.
        gate: least gain in probability, in [0, 1]; 0 is the plain maximum.

    Returns:
        As `fuse`. No view is more than `gate` above the fused probability.

    """
    z = zero_shot
    winner = np.full(zero_shot.shape, WHOLE, dtype=np.int16)
    for k, crop in enumerate(crops):
        better = (crop > z) & (sigmoid(crop) - sigmoid(z) >= gate)
        z = np.where(better, crop, z)
        winner[better] = k
    return z.astype(np.float32), winner


def fuse(
    zero_shot: npt.NDArray[np.floating[Any]],
    crops: npt.NDArray[np.floating[Any]],
    alpha: float,
    space: Space,
    epsilon: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """z <- max(z, z_k - alpha) for k = 1..M, from z = z_0 (Eq. 7).

    Args:
        zero_shot: (N, C) logits Z0 of the whole photos.
        crops: (M, N, C) logits Z^k of the crops.
        alpha: suppression of the crops, at least 0.
        space: `logit` subtracts alpha from logits (paper), `probability` from their sigmoid.
        epsilon: clamp of probabilities on the way back to logits; space `probability` only.

    Returns:
        (N, C) fused logits, nowhere below `zero_shot`, and the index of the view that gave each: 0..M-1, or
        WHOLE (-1). Of equal views the first wins, the whole photo before all.

    """
    z = zero_shot if space == "logit" else sigmoid(zero_shot)
    winner = np.full(zero_shot.shape, WHOLE, dtype=np.int16)
    for k, crop in enumerate(crops):
        suppressed = (crop if space == "logit" else sigmoid(crop)) - alpha
        better = suppressed > z
        z = np.where(better, suppressed, z)
        winner[better] = k
    if space == "probability":
        z = np.where(winner == WHOLE, zero_shot, logit(z, epsilon))
    return z.astype(np.float32), winner
