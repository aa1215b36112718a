"""Numbers of an audit as plain JSON values."""

import math
from typing import Any

import numpy as np

from cutsew.numerics.override import ABSENT, LEFT, PRESENT
from cutsew.numerics.score import sigmoid

Content = dict[str, Any]

IN_WORDS = {1: "present", 0: "absent", -1: "not counted"}
"""True labels as they are told."""

BY_HAND = {LEFT: None, PRESENT: "present", ABSENT: "absent"}
"""What a human said of a label."""


def answer(z: Any) -> Content | None:  # noqa: ANN401  # any real number of numpy's or Python's
    """Return a logit with its probability; None where there is none (a photo that the teacher did not score)."""
    if not math.isfinite(z):
        return None
    return {"logit": float(z), "probability": float(sigmoid(np.array(z, dtype=np.float64)))}


def finite(value: Any) -> float | None:  # noqa: ANN401
    """Return a number, None where it is not one."""
    return float(value) if math.isfinite(value) else None
