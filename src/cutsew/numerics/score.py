"""Confidence of a teacher in the domain of the sigmoid (paper, Eq. 3-4)."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def sigmoid(z: Floats) -> Floats:
    """S(z) = 1 / (1 + exp(-z)), without overflow."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, small) / (1 + small)  # type: ignore[no-any-return]


def logit(p: Floats, epsilon: float) -> Floats:
    """S^-1(p) = log(p / (1 - p)) of probabilities clamped to [epsilon, 1 - epsilon]."""
    clamped = np.clip(p.astype(np.float64), epsilon, 1 - epsilon)
    return np.log(clamped) - np.log1p(-clamped)


def softmax(similarity: Floats) -> Floats:
    """Softmax over the last dimension (Eq. 3)."""
    raised = np.exp(similarity - similarity.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def score(embeddings: Floats, text: Floats, scale: float, epsilon: float) -> npt.NDArray[np.float32]:
    """Z = S^-1(softmax(scale * cos(image, text))) (Eq. 3-4).

    Args:
        embeddings: (..., D) of views; normalised here, since float16 storage moves their length a little.
        text: (C, D) of the classes, L2-normalised.
        scale: logit scale, 100 for CLIP.
        epsilon: probabilities are clamped to [epsilon, 1 - epsilon].

    Returns:
        (..., C) logits.

    """
    views = embeddings.astype(np.float32)
    views = views / np.maximum(np.linalg.norm(views, axis=-1, keepdims=True), 1e-12)
    return logit(softmax(scale * (views @ text.T.astype(np.float32))), epsilon).astype(np.float32)
