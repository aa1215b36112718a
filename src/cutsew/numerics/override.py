"""A human's corrections laid over labels. They are no part of the method, which asks nobody."""

import numpy as np
import numpy.typing as npt

from cutsew.numerics.score import logit

LEFT, ABSENT, PRESENT = 0, -1, 1
"""What was done to a label: left as it was, said to be absent, said to be present."""


def override(
    z: npt.NDArray[np.float32], said: npt.NDArray[np.int8], epsilon: float
) -> tuple[npt.NDArray[np.float32], int]:
    """Set the labels that a human is certain of.

    Args:
        z: (N, C) logits.
        said: (N, C) int8: PRESENT, ABSENT, or LEFT where nothing was said.
        epsilon: clamp of probabilities, in (0, 0.5): a present class gets the logit of 1 - epsilon, an absent one that
            of epsilon, as the surest answer of a teacher would.

    Returns:
        (N, C) logits, those left as they were bit for bit, and how many were set.

    """
    sure = np.float32(logit(np.array(1 - epsilon), epsilon))
    made = np.where(said == LEFT, z, said * sure).astype(np.float32)
    return made, int(np.count_nonzero(said))
