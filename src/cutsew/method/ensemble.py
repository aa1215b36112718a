"""Student and fused teacher together: the mean of their standardised scores (not the paper's).

Both rank the photos of a class, each with errors of its own; but their logits are on different scales, which differ
from class to class too. So each is first set against its mean and deviation over the training photos, which no label
chose.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


class Reference(NamedTuple):
    """Score statistics of a model: mean and standard deviation of each class's logits; (C,) float64 each."""

    mean: Floats
    deviation: Floats


def reference(z: Floats) -> Reference:
    """Compute the score statistics on some photos.

    Args:
        z: (n, C) logits, n > 0.

    """
    wide = z.astype(np.float64)
    return Reference(wide.mean(axis=0), wide.std(axis=0))


def standardised(z: Floats, usual: Reference) -> Floats:
    """(z - mean) / deviation, (n, C) float64; 0 for a class whose logits did not differ, since they say nothing."""
    away = z.astype(np.float64) - usual.mean
    return np.divide(away, usual.deviation, out=np.zeros_like(away), where=usual.deviation > 0)


def ensemble(student: Floats, teacher: Floats, of_student: Reference, of_teacher: Reference) -> npt.NDArray[np.float32]:
    """Combine: the mean of both standardised scores, set on the student's scale.

    Within a class the order of the photos is that of the mean. The student's mean and deviation are then put back, so
    that the values stay logits: a photo with average logits in both gets the student's mean logit.

    Args:
        student: (n, C) logits.
        teacher: (n, C) fused logits of the same photos.
        of_student: score statistics of the student.
        of_teacher: score statistics of the teacher.

    Returns:
        (n, C) float32 logits. Where the student's training logits did not differ, the deviation that is put back is 1.

    """
    return on_scale((standardised(student, of_student) + standardised(teacher, of_teacher)) / 2, of_student)


def on_scale(standard: Floats, usual: Reference) -> npt.NDArray[np.float32]:
    """Put (n, C) standardised scores on a model's scale: mean + deviation * score, a deviation of 0 counting as 1."""
    scale = np.where(usual.deviation > 0, usual.deviation, 1.0)
    return (usual.mean + scale * standard).astype(np.float32)
