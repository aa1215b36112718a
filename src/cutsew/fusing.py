"""Which fusion the settings ask for."""

import numpy as np
import numpy.typing as npt

from cutsew.config.method import Fuse
from cutsew.numerics.fuse import fuse as fuse_views
from cutsew.numerics.fuse import fuse_cdul, fuse_gated, fuse_mean, fuse_soft
from cutsew.numerics.score import Floats
from cutsew.numerics.soften import soften


def fuse_by(
    rule: Fuse, whole: Floats, crops: Floats, factor: float, epsilon: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Fuse the answers of all views by the rule of the settings.

    Args:
        rule: settings; `passes` and `soften` are not read.
        whole: (n, C) logits of the whole photos.
        crops: (M, n, C) of those crops that are fused.
        factor: softening of rule soft.
        epsilon: clamp of probabilities.

    Returns:
        (n, C) logits and the (n, C) winning views.

    """
    match rule.rule:
        case "gated":
            return fuse_gated(whole, crops, rule.gate)
        case "mean":
            return fuse_mean(whole, crops, epsilon)
        case "cdul":
            return fuse_cdul(whole, crops, rule.zeta, epsilon)
        case "soft":
            answers = soften(whole, factor, epsilon), soften(crops, factor, epsilon)
            return fuse_soft(*answers, rule.alpha, rule.tau, rule.anchor)
    return fuse_views(whole, crops, rule.alpha, rule.space, epsilon)
