"""Sewing: the salient photos that are pasted onto others (paper, Eq. 10)."""

from typing import Any

import numpy as np
import numpy.typing as npt


def top_k(zero_shot: npt.NDArray[np.floating[Any]], k: int) -> npt.NDArray[np.int64]:
    """P_i: the k images with the largest Z0 of each class (Eq. 10).

    Args:
        zero_shot: (N, C) logits Z0.
        k: images per class, 1..N.

    Returns:
        (C, k) indices into N, most salient first; of equal images the first. Their deduplicated union is P.

    Raises:
        ValueError: k is more than N.

    """
    if k > len(zero_shot):
        raise ValueError(f"k = {k} is more than the {len(zero_shot)} images")
    return np.argsort(-zero_shot, axis=0, kind="stable")[:k].T.astype(np.int64)
