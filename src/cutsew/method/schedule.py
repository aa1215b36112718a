"""Learning-rate schedules as one factor per step, and how many steps there are."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

LEAST_STEPS = 800
"""Steps of `train.epochs: auto`. On 300 images of the demo 19 steps, one epoch, gave 41 % mAP, 400 gave 83, 800 84."""

FEWEST_STEPS = 100
"""Training steps below which a head has hardly learned: 19 steps gave 41 % mAP on the demo, 800 gave 84."""


def longer_training(head: str) -> str:
    """Name the setting that gives a head enough steps."""
    return f"train.steps: {LEAST_STEPS}" if head == "linear" else "train.epochs: auto"


def automatic_epochs(steps_per_epoch: int) -> int:
    """Return the epochs that give at least LEAST_STEPS steps: few images need many epochs (not the paper's one)."""
    return math.ceil(LEAST_STEPS / steps_per_epoch)


def rate_factors(steps: int, schedule: Literal["constant", "cosine"], warmup: float) -> npt.NDArray[np.float64]:
    """Give the factor in [0, 1] of the learning rate at each step.

    Args:
        steps: number of optimizer steps.
        schedule: `constant` (paper) stays at 1 after the warm-up; `cosine` falls from 1 towards 0 at the end.
        warmup: share of the steps, in [0, 1], in which the factor rises linearly from near 0 to 1.

    Returns:
        (steps,) float64.

    """
    step = np.arange(steps, dtype=np.float64)
    rising = round(warmup * steps)
    factors = np.ones(steps)
    if schedule == "cosine":
        factors = 0.5 * (1 + np.cos(np.pi * (step - rising) / max(1, steps - rising)))
    return np.where(step < rising, (step + 1) / max(1, rising), factors)
