"""Softening a teacher's answers: the softmax at a smaller logit scale, from the logits that it gave at its own."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.method.score import logit, softmax

Logits = npt.NDArray[np.floating[Any]]

WIDEST = (1e-3, 10.0)
"""Softenings between which one is looked for."""

HALVINGS = 40

LEAST = 1e-7
"""Least probability that is taken to be left for the background: the others are known to as many digits."""


def rescale_temperature(z: Logits, factor: float, epsilon: float, *, rest: bool = False) -> Logits:
    """S^-1(softmax(s log S(z))): with z = S^-1(softmax(x)) this is S^-1(softmax(s x)).

    So embeddings need not be read again to evaluate the teacher at another scale. Probabilities that were clamped on
    the way to z stay a little too large.

    Args:
        z: (..., C) logits, each the inverse sigmoid of a softmax over the classes.
        factor: s, above 0; 1 changes nothing but the clamp, less than 1 makes answers less certain.
        epsilon: probabilities are clamped to [epsilon, 1 - epsilon].
        rest: background words took part in the softmax, so that the probabilities sum to less than one; what is left
            competes as one more class, since that of each word is not kept.

    Returns:
        (..., C) logits, float64.

    """
    return logit(_softened(z, factor, rest=rest)[..., : z.shape[-1]], epsilon)


def fit_temperature(z: Logits, certainty: float, *, rest: bool = False) -> float:
    """Find, without labels, the softening at which the mean probability of an image's likeliest class is `certainty`.

    Args:
        z: (n, C) logits of whole images, n > 0.
        certainty: in (1 / C, 1).
        rest: as of `soften`; the rest may be the likeliest.

    Returns:
        s, within 1e-9 of its logarithm; the nearer end of WIDEST where none between them does.

    """
    low, high = np.log(WIDEST)
    for _ in range(HALVINGS):  # the mean rises with s
        middle = (low + high) / 2
        if _softened(z, float(np.exp(middle)), rest=rest).max(axis=-1).mean() < certainty:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def _softened(z: Logits, factor: float, *, rest: bool) -> Logits:
    log_p = -np.logaddexp(0, -z.astype(np.float64))
    if rest:
        left = 1 - np.exp(log_p).sum(axis=-1, keepdims=True)
        log_p = np.concatenate([log_p, np.log(np.maximum(left, LEAST))], axis=-1)
    return softmax(factor * log_p)
