"""The fusion that the settings select."""

import numpy as np
import numpy.typing as npt

from cutsew.config.method import (
    CdulFusionConfig,
    Fuse,
    GatedFusionConfig,
    MaxFusionConfig,
    MeanFusionConfig,
    SoftFusionConfig,
    StandardFusionConfig,
)
from cutsew.method.fuse import Extremes, fuse_cdul, fuse_gated, fuse_mean, fuse_soft, fuse_standard
from cutsew.method.fuse import fuse as fuse_views
from cutsew.method.score import Floats
from cutsew.method.soften import rescale_temperature
from cutsew.storage.zarr_layout import Answers

FOUND = {"soft": "soften", "standard": "shift"}
"""Rule -> the number that it needs and that is found from many images, as fused.zarr's record names it."""


def fuse_by_rule(
    rule: Fuse, whole: Floats, crops: Floats | Extremes, temperature: float, epsilon: float, answers: Answers
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Fuse the answers of all views by the rule of the settings.

    Args:
        rule: settings; `passes` and `soften` are not read.
        whole: (n, C) logits of the whole images.
        crops: (M, n, C) of those crops that are fused; rules max and cdul take their extremes as well.
        temperature: softening of rule soft, or what rule standard subtracts from its sum; see FOUND.
        epsilon: clamp of a softmax's probabilities.
        answers: what kind of logits they are.

    Returns:
        (n, C) logits and the (n, C) winning views.

    """
    clamp = epsilon if answers.activation == "softmax" else None
    match rule:
        case MaxFusionConfig():
            return fuse_views(whole, crops, rule.alpha, rule.space, clamp)
        case CdulFusionConfig():
            return fuse_cdul(whole, crops, rule.zeta, clamp)
    if isinstance(crops, Extremes):
        raise TypeError(f"rule {rule.rule} needs the logits of all crops")
    match rule:
        case GatedFusionConfig():
            return fuse_gated(whole, crops, rule.gate)
        case MeanFusionConfig():
            return fuse_mean(whole, crops, clamp)
        case SoftFusionConfig():
            softened = (
                softened_by(whole, temperature, epsilon, answers),
                softened_by(crops, temperature, epsilon, answers),
            )
            return fuse_soft(*softened, rule.alpha, rule.tau, rule.anchor)
        case StandardFusionConfig():
            compared = similarities(whole, answers), similarities(crops, answers)
            z, winner = fuse_standard(*compared, rule.tau)
            return z - np.float32(temperature), winner


def similarities(z: Floats, answers: Answers) -> Floats:
    """Return what a softmax was taken of, less one number per view, of (..., C) logits; a sigmoid's are as they are."""
    return z if answers.activation == "sigmoid" else -np.logaddexp(0, -z.astype(np.float64))


def softened_by(z: Floats, factor: float, epsilon: float, answers: Answers) -> Floats:
    """Soften (..., C) logits: a softmax is computed at another logit scale, a sigmoid's logits are multiplied."""
    if answers.activation == "sigmoid":
        return factor * z.astype(np.float64)
    return rescale_temperature(z, factor, epsilon, rest=answers.background > 0)
