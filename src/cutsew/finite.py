"""Stopping where a model answers with what is no number, before it spreads into labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.errors import UserError


def refuse_not_finite(values: npt.NDArray[np.floating[Any]], names: Sequence[str], what: str) -> None:
    """Refuse NaN and infinities.

    Args:
        values: (n, ...) what a model said of n photos or classes.
        names: n or more names, in the same order.
        what: the answer, such as "the teacher's embedding of view 3".

    Raises:
        UserError: a value is not finite; the first such photo or class is named.

    """
    sound = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not sound.all():
        name = names[int(np.argmin(sound))]
        raise UserError(f"{name}: {what} is not finite; check the model's weights, or set precision: float32")
