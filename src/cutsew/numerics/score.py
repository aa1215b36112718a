"""Confidence of a teacher in the domain of the sigmoid (paper, Eq. 3-4)."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

BLOCK = 256
"""Views in one product of matrices, the last one filled up with zeros: they and the product stay in the processor's
cache, and what comes out for a view does not depend on how many others there are."""


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
    rows = embeddings.reshape(-1, embeddings.shape[-1])
    words = np.ascontiguousarray(text.T, dtype=np.float32)
    views = np.zeros((BLOCK, rows.shape[1]), np.float32)
    z = np.empty((len(rows), len(text)), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = z[start : start + BLOCK]
        views[: len(part)] = rows[start : start + BLOCK]
        views[len(part) :] = 0
        length = np.maximum(np.sqrt(np.einsum("nd,nd->n", views, views)), 1e-12)
        similarity = (views @ words) * (scale / length).astype(np.float32)[:, None]
        part[...] = logit(softmax(similarity[: len(part)]), epsilon)
    return z.reshape(*embeddings.shape[:-1], len(text))
