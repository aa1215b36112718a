"""Student and fused teacher together: the mean of their standardized scores (not the paper's).

Both rank the images of a class, each with errors of its own; but their logits are on different scales, which differ
from class to class too. So each is first set against its mean and deviation over the training images, which no label
chose.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


class ScoreStats(NamedTuple):
    """Score statistics of a model: mean and standard deviation of each class's logits; (C,) float64 each."""

    mean: Floats
    std: Floats


def score_stats(z: Floats) -> ScoreStats:
    """Compute the score statistics on some images.

    Args:
        z: (n, C) logits, n > 0.

    """
    wide = z.astype(np.float64)
    return ScoreStats(wide.mean(axis=0), wide.std(axis=0))


def standardize(z: Floats, stats: ScoreStats) -> Floats:
    """(z - mean) / deviation, (n, C) float64; 0 for a class whose logits did not differ, since they say nothing."""
    centered = z.astype(np.float64) - stats.mean
    return np.divide(centered, stats.std, out=np.zeros_like(centered), where=stats.std > 0)


def ensemble(
    student: Floats, teacher: Floats, of_student: ScoreStats, of_teacher: ScoreStats
) -> npt.NDArray[np.float32]:
    """Combine: the mean of both standardized scores, set on the student's scale.

    Within a class the order of the images is that of the mean. The student's mean and deviation are then put back, so
    that the values stay logits: an image with average logits in both gets the student's mean logit.

    Args:
        student: (n, C) logits.
        teacher: (n, C) fused logits of the same images.
        of_student: score statistics of the student.
        of_teacher: score statistics of the teacher.

    Returns:
        (n, C) float32 logits. Where the student's training logits did not differ, the deviation that is put back is 1.

    """
    return rescale((standardize(student, of_student) + standardize(teacher, of_teacher)) / 2, of_student)


def rescale(standard: Floats, stats: ScoreStats) -> npt.NDArray[np.float32]:
    """Put (n, C) standardized scores on a model's scale: mean + deviation * score, a deviation of 0 counting as 1."""
    scale = np.where(stats.std > 0, stats.std, 1.0)
    return (stats.mean + scale * standard).astype(np.float32)
