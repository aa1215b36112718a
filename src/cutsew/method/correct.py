"""Sewing: label correction (paper, Section 3.3.1), and corrections by hand.

- Sewing: order-persistent label correction (paper, Section 3.3.1, Eq. 9; alternatives Eq. 21-22).
- Manual corrections applied to labels. They are not part of the method, which needs no human.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cutsew.method.score import logit

Floats = npt.NDArray[np.floating[Any]]
Rule = Literal["sqrt", "linear", "hard", "identity"]

HARD_HIGH, HARD_LOW = 0.95, 0.05
"""Probabilities that rule `hard` sets the largest and the smallest class of an image to (Eq. 21)."""


def correct(
    z: Floats, rule: Rule, beta: int = 1, linear_alpha: float = 0.1
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Z' = g(Z): lift the top-beta classes of each image.

    `sqrt` (Eq. 9): p becomes sqrt(p). `linear` (Eq. 22): p becomes a + (1 - a) p. `hard` (Eq. 21): the largest becomes
    0.95, the smallest 0.05, whatever beta. `identity`: nothing changes. The first two keep the order of classes
    within an image. Computed on log-probabilities, so that no clamp is needed.

    Args:
        z: (N, C) logits.
        rule: one of the four.
        beta: classes lifted per image by `sqrt` and `linear`, 1..C; of equal classes the first.
        linear_alpha: a of rule `linear`, in [0, 1).

    Returns:
        (N, C) corrected logits, and which of them the rule touched.

    """
    touched = np.zeros(z.shape, dtype=bool)
    if rule == "identity":
        return z.astype(np.float32), touched
    if rule == "hard":
        return _hard(z, touched)
    top = np.argsort(-z, axis=1, kind="stable")[:, :beta]
    np.put_along_axis(touched, top, True, axis=1)
    lifted = _sqrt(z.astype(np.float64)) if rule == "sqrt" else _linear(z.astype(np.float64), linear_alpha)
    return np.where(touched, lifted, z).astype(np.float32), touched


def _log_sigmoid(z: Floats) -> Floats:
    return -np.logaddexp(0, -z)


def _sqrt(z: Floats) -> Floats:
    """S^-1(sqrt(S(z))), with 1 - sqrt(p) = (1 - p) / (1 + sqrt(p))."""
    half = 0.5 * _log_sigmoid(z)
    return half - _log_sigmoid(-z) + np.log1p(np.exp(half))  # type: ignore[no-any-return]


def _linear(z: Floats, a: float) -> Floats:
    """S^-1(a + (1 - a) S(z)), with 1 - (a + (1 - a) p) = (1 - a)(1 - p)."""
    return np.log(a + (1 - a) * np.exp(_log_sigmoid(z))) - np.log1p(-a) - _log_sigmoid(-z)  # type: ignore[no-any-return]


def _hard(z: Floats, touched: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    corrected = z.astype(np.float32)
    rows = np.arange(len(z))
    for columns, p in ((z.argmin(axis=1), HARD_LOW), (z.argmax(axis=1), HARD_HIGH)):
        corrected[rows, columns] = np.log(p / (1 - p))
        touched[rows, columns] = True
    return corrected, touched


LEFT, ABSENT, PRESENT = 0, -1, 1
"""What was done to a label: left as it was, said to be absent, said to be present."""


def override(
    z: npt.NDArray[np.float32], corrections: npt.NDArray[np.int8], epsilon: float
) -> tuple[npt.NDArray[np.float32], int]:
    """Set the labels that a human is certain of.

    Args:
        z: (N, C) logits.
        corrections: (N, C) int8: PRESENT, ABSENT, or LEFT where nothing was said.
        epsilon: clamp of probabilities, in (0, 0.5): a present class gets the logit of 1 - epsilon, an absent one that
            of epsilon, as a teacher's most confident output would.

    Returns:
        (N, C) logits, those left as they were bit for bit, and how many were set.

    """
    sure = np.float32(logit(np.array(1 - epsilon), epsilon))
    corrected = np.where(corrections == LEFT, z, corrections * sure).astype(np.float32)
    return corrected, int(np.count_nonzero(corrections))
