"""Cutting: fusing the answers of all views into one (paper, Eq. 6-7)."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cutsew.method.score import Floats, logit, sigmoid

WHOLE = -1
"""The winner's index where the whole image's own answer stands."""

Space = Literal["logit", "probability"]

MIN_DEVIATION = 1e-6
"""Least deviation of a view's similarities; below it the view prefers no class, and rounding must not be amplified."""


class Extremes(NamedTuple):
    """Per class, the highest and the lowest of an image's crops: all that rules max and cdul need of them.

    Attributes:
        highest: (N, C) logits; -inf without crops.
        highest_view: (N, C) int16, the crop's index 0..M-1, of equal ones the first; WHOLE (-1) without crops.
        lowest, lowest_view: the same of the lowest, +inf without crops; None where only the highest is needed.

    """

    highest: npt.NDArray[np.floating[Any]]
    highest_view: npt.NDArray[np.int16]
    lowest: npt.NDArray[np.floating[Any]] | None
    lowest_view: npt.NDArray[np.int16] | None


def extremes(crops: Iterable[Floats], like: Floats, *, lowest: bool) -> Extremes:
    """Find the highest and, with `lowest`, the lowest crops; only one crop's logits need to be in memory at a time.

    Args:
        crops: M times (N, C) logits. Images without scores (NaN) have neither a highest nor a lowest crop.
        like: (N, C), the whole images' logits.
        lowest: find the lowest ones too.

    """
    high, high_view = np.full_like(like, -np.inf), np.full(like.shape, WHOLE, np.int16)
    low, low_view = np.full_like(like, np.inf), high_view.copy()
    for k, crop in enumerate(crops):
        found = [(high, high_view, crop > high), *([(low, low_view, crop < low)] if lowest else [])]
        for value, view, better in found:
            np.copyto(value, crop, where=better)
            np.copyto(view, np.int16(k), where=better)
    return Extremes(high, high_view, low, low_view) if lowest else Extremes(high, high_view, None, None)


def fuse_gated(
    zero_shot: npt.NDArray[np.floating[Any]], crops: npt.NDArray[np.floating[Any]], gate: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """z <- z_k where S(z_k) - S(z) >= gate, for k = 1..M, from z = z_0: the released code's rule, without alpha.

    Args:
        zero_shot: (N, C) logits Z0 of the whole images.
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


def fuse_mean(
    zero_shot: npt.NDArray[np.floating[Any]], crops: npt.NDArray[np.floating[Any]], epsilon: float | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """S(z) = mean of S(z_0), S(z_1), ..., S(z_M): the plain average of all views' probabilities.

    Args:
        zero_shot: (N, C) logits Z0 of the whole images.
        crops: (M, N, C) logits Z^k of the crops.
        epsilon: clamp of probabilities on the way back to logits; None where the logits are not clamped either.

    Returns:
        (N, C) fused logits, and the index of the view of highest logit per class: 0..M-1, or WHOLE (-1). Of equal
        views the first counts, the whole image before all.

    """
    best = zero_shot
    winner = np.full(zero_shot.shape, WHOLE, dtype=np.int16)
    for k, crop in enumerate(crops):
        winner[crop > best] = k
        best = np.maximum(best, crop)
    return _logit_of_mean([zero_shot, *crops], epsilon).astype(np.float32), winner


def fuse_cdul(
    zero_shot: npt.NDArray[np.floating[Any]], crops: Floats | Extremes, zeta: float, epsilon: float | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """S = (S_global + S_aggregate) / 2 of CDUL (Abdelfattah et al., ICCV 2023, Section 3.1), over crops for snippets.

    S_aggregate is per class the greatest probability of the crops, alpha, where that is at least zeta: some crop shows
    the class. Else it is the least, beta: no crop does, and the one with the lowest probability is used.

    Args:
        zero_shot: (N, C) logits Z0 of the whole images, S_global.
        crops: (M, N, C) logits Z^k of the crops, S_local, or their extremes.
        zeta: probability from which a crop is taken to show a class, in [0, 1].
        epsilon: as of `fuse_mean`.

    Returns:
        (N, C) fused logits, and the index of the crop that the aggregate took: 0..M-1; of equal crops the first.
        Without crops, `zero_shot` and WHOLE (-1).

    """
    found = crops if isinstance(crops, Extremes) else extremes(crops, zero_shot, lowest=True)
    if found.lowest is None or found.lowest_view is None:
        raise ValueError("fuse_cdul needs the lowest crops too")
    shown = sigmoid(found.highest) >= zeta
    winner = np.where(shown, found.highest_view, found.lowest_view)
    whole = winner == WHOLE
    aggregate = np.where(whole, zero_shot, np.where(shown, found.highest, found.lowest))
    z = np.where(whole, zero_shot, _logit_of_mean([zero_shot, aggregate], epsilon))
    return z.astype(np.float32), winner


def _logit_of_mean(views: Sequence[Floats], epsilon: float | None) -> Floats:
    """S^-1(mean of S(z_k)).

    Without a clamp by logarithms, since 1 / (1 + exp(-z)) rounds to 0 or 1 where |z| is large:
    log sum S(z_k) - log sum S(-z_k), the number of views being cancelled.
    """
    if epsilon is not None:
        total = sigmoid(views[0].astype(np.float64))
        for z in views[1:]:
            total = total + sigmoid(z.astype(np.float64))
        return logit(total / len(views), epsilon)
    wide = [z.astype(np.float64) for z in views]
    yes: Floats = np.logaddexp.reduce([-np.logaddexp(0, -z) for z in wide], axis=0)
    no: Floats = np.logaddexp.reduce([-np.logaddexp(0, z) for z in wide], axis=0)
    return yes - no


def fuse_soft(
    zero_shot: npt.NDArray[np.floating[Any]],
    crops: npt.NDArray[np.floating[Any]],
    alpha: float,
    tau: float,
    anchor: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """z = (1 - a) tau log mean{exp(z_0 / tau), exp((z_k - alpha) / tau), k = 1..M} + a z_0: a soft, anchored maximum.

    Not the paper's; for tau -> 0 and a = 0 it is Eq. 7. Where many views agree it says more than their maximum alone,
    and the whole image keeps a say.

    Args:
        zero_shot: (N, C) logits Z0 of the whole images.
        crops: (M, N, C) logits Z^k of the crops.
        alpha: suppression of the crops, at least 0.
        tau: temperature of the maximum, above 0, in logits.
        anchor: a, weight of the whole image's own logits, in [0, 1].

    Returns:
        (N, C) fused logits, and the view of the largest term as in `fuse`.

    """
    largest, winner = fuse(zero_shot, crops, alpha, "logit", 0.5)
    terms = np.exp((zero_shot - largest).astype(np.float64) / tau)
    for crop in crops:
        terms += np.exp((crop - alpha - largest) / tau)
    soft = largest + tau * np.log(terms / (1 + len(crops)))
    return ((1 - anchor) * soft + anchor * zero_shot).astype(np.float32), winner


def standardized(similarities: Floats) -> npt.NDArray[np.float64]:
    """(x - mean) / deviation over the last axis; 0 throughout where all classes are equal.

    Args:
        similarities: (..., C) of views, before a softmax. Log-probabilities do as well: a softmax subtracts one number
            from all classes of a view.

    Returns:
        (..., C) with mean 0 and standard deviation 1 (population), unchanged by a shift or a positive factor of a view.

    """
    centered = similarities.astype(np.float64) - similarities.mean(axis=-1, keepdims=True, dtype=np.float64)
    deviation = np.sqrt((centered**2).mean(axis=-1, keepdims=True))
    # NaN (images without scores) stays NaN
    return np.where(deviation < MIN_DEVIATION, 0.0, centered / np.maximum(deviation, MIN_DEVIATION))


def fuse_standard(
    zero_shot: Floats, crops: Floats, tau: float | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """u_0 + max u_k, k = 1..M, or 2 tau log mean{exp(u_k / tau), k = 0..M}, of similarities u standardized per view.

    Not the paper's. A view that is confident of everything, and one that is confident of nothing, count alike. Only
    differences between the results mean something: see `method.label_count.standard_shift`.

    Args:
        zero_shot: (N, C) similarities of the whole images, C at least 3: two standardized classes are always 1 and -1.
        crops: (M, N, C) of the crops. Without any, the whole image takes the place of the best one.
        tau: temperature of the soft maximum, above 0; None takes the sum. The soft maximum is doubled, since the
            sum is of two views.

    Returns:
        (N, C), NaN in the rows where `zero_shot` is; and the index of the best crop, 0..M-1, of equal ones the first.
        With a tau the whole image competes too and is WHOLE (-1), as it is without crops.

    """
    whole = standardized(zero_shot)
    best, winner = whole, np.full(whole.shape, WHOLE, dtype=np.int16)
    if tau is None and len(crops):
        best = np.full(whole.shape, -np.inf)
    for k, crop in enumerate(crops):
        u = standardized(crop)
        winner[u > best] = k
        best = np.maximum(best, u)
    if tau is None:
        return (whole + best).astype(np.float32), winner
    terms = np.exp((whole - best) / tau)
    for crop in crops:
        terms += np.exp((standardized(crop) - best) / tau)
    return (2 * (best + tau * np.log(terms / (1 + len(crops))))).astype(np.float32), winner


def fuse_tagclip(
    local: npt.NDArray[np.floating[Any]], again: npt.NDArray[np.floating[Any]], weight: float, epsilon: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """P = (1 - w) P_local + w P_global of TagCLIP's class-wise reidentification (Lin et al., AAAI 2024).

    Args:
        local: (N, C) scores of each class's best patch, in [0, 1].
        again: (N, C) probability of the class from scoring its region, in [0, 1]; NaN where it was not.
        weight: w, of the second answer, in [0, 1].
        epsilon: clamp of scores on the way to logits.

    Returns:
        (N, C) logits, of `local` where there was no second look; and WHOLE (-1) throughout: no crop gave them.

    """
    second = np.where(np.isnan(again), local, again).astype(np.float64)
    z = logit((1 - weight) * local.astype(np.float64) + weight * second, epsilon)
    return z.astype(np.float32), np.full(local.shape, WHOLE, dtype=np.int16)


def fuse(
    zero_shot: npt.NDArray[np.floating[Any]],
    crops: Floats | Extremes,
    alpha: float,
    space: Space,
    epsilon: float | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """z <- max(z, z_k - alpha) for k = 1..M, from z = z_0 (Eq. 7).

    Args:
        zero_shot: (N, C) logits Z0 of the whole images.
        crops: (M, N, C) logits Z^k of the crops, or their extremes: suppression keeps the order of the crops.
        alpha: suppression of the crops, at least 0.
        space: `logit` subtracts alpha from logits (paper), `probability` from their sigmoid.
        epsilon: as of `fuse_mean`; space `probability` only.

    Returns:
        (N, C) fused logits, nowhere below `zero_shot`, and the index of the view that gave each: 0..M-1, or
        WHOLE (-1). Of crops with equal logits the first wins, and the whole image wins over a crop that is not better
        after suppression.

    """

    def in_space(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        if space == "logit":
            return values
        return sigmoid(values if epsilon is not None else values.astype(np.float64))

    found = crops if isinstance(crops, Extremes) else extremes(crops, zero_shot, lowest=False)
    z, suppressed = in_space(zero_shot), in_space(found.highest) - alpha
    better = suppressed > z
    z, winner = np.where(better, suppressed, z), np.where(better, found.highest_view, np.int16(WHOLE))
    if space == "probability":
        z = np.where(winner == WHOLE, zero_shot, logit(z, epsilon))
    return z.astype(np.float32), winner


def suppressed_crops(
    zero_shot: npt.NDArray[np.floating[Any]],
    crops: npt.NDArray[np.floating[Any]],
    winner: npt.NDArray[np.integer[Any]],
) -> npt.NDArray[np.bool_]:
    """Which crops score higher than the view that won, and lost because of alpha or the gate alone.

    Alpha suppresses all crops alike, so it can only keep them all from beating the whole image: where a crop won, no
    other is surer. A gate also keeps a crop from beating an earlier one. Without alpha or gate the most confident would
    win.

    Args:
        zero_shot: (N, C) logits of the whole images.
        crops: (M, N, C) logits of the crops that were fused.
        winner: (N, C) as `fuse` gives it.

    Returns:
        (M, N, C).

    """
    if not len(crops):
        return np.zeros(crops.shape, dtype=bool)
    of_crop = np.take_along_axis(crops, np.maximum(winner, 0)[None].astype(np.int64), axis=0)[0]
    return crops > np.where(winner == WHOLE, zero_shot, of_crop)
