"""A teacher's logits (paper, Eq. 3-4; or the sigmoid's of SigLIP and kin)."""

from collections.abc import Sequence
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


def logit(p: Floats, epsilon: float | None) -> Floats:
    """S^-1(p) = log(p / (1 - p)) of probabilities clamped to [epsilon, 1 - epsilon].

    Without an epsilon they are clamped only so far that the result is finite, to [2e-308, 1 - 1e-16].
    """
    low, high = (epsilon, 1 - epsilon) if epsilon is not None else (np.finfo(np.float64).tiny, 1 - 2**-53)
    clamped = np.clip(p.astype(np.float64), low, high)
    return np.log(clamped) - np.log1p(-clamped)


def softmax(similarity: Floats) -> Floats:
    """Softmax over the last dimension (Eq. 3)."""
    raised = np.exp(similarity - similarity.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def score(
    embeddings: Floats,
    text: Floats,
    scale: float,
    epsilon: float,
    *,
    bias: float | None = None,
    wordings: Sequence[int] | None = None,
    background: Floats | None = None,
) -> npt.NDArray[np.float32]:
    """Z = S^-1(softmax(scale * cos(image, text))) (Eq. 3-4), or Z = scale * cos(image, text) + bias.

    The second is the logit of a model trained with a sigmoid loss (SigLIP; Zhai et al., ICCV 2023). It is taken as it
    is: no class competes with another, and no clamp makes strongly negative ones equal.

    Args:
        embeddings: (..., D) of views; normalized here, since float16 storage moves their length a little.
        text: (W, D) of the classes' wordings, class by class, L2-normalized; of the classes where W = C.
        scale: logit scale, 100 for CLIP.
        epsilon: probabilities are clamped to [epsilon, 1 - epsilon]; not used with a bias.
        bias: logit bias of a model trained with a sigmoid loss; None takes the softmax.
        wordings: (C,) how many rows of `text` each class has; its best one counts, view by view. None for one each.
        background: (B, D) texts of no class, L2-normalized, that take part in the softmax and are dropped after it;
            not used with a bias.

    Returns:
        (..., C) logits.

    """
    texts = text if background is None or bias is not None else np.concatenate([text, background])
    num_background = len(texts) - len(text)
    rows = embeddings.reshape(-1, embeddings.shape[-1])
    words = np.ascontiguousarray(texts.T, dtype=np.float32)
    starts = None if wordings is None else np.cumsum([0, *wordings, *[1] * num_background])[:-1]
    classes = len(text) if wordings is None else len(wordings)
    views = np.zeros((BLOCK, rows.shape[1]), np.float32)
    z = np.empty((len(rows), classes), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = z[start : start + BLOCK]
        views[: len(part)] = rows[start : start + BLOCK]
        views[len(part) :] = 0
        length = np.maximum(np.sqrt(np.einsum("nd,nd->n", views, views)), 1e-12)
        similarity = ((views @ words) * (scale / length).astype(np.float32)[:, None])[: len(part)]
        if starts is not None:
            similarity = np.maximum.reduceat(similarity, starts, axis=1)
        part[...] = similarity + bias if bias is not None else logit(softmax(similarity)[:, :classes], epsilon)
    return z.reshape(*embeddings.shape[:-1], classes)
