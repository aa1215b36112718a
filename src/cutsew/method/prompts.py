"""From class names to texts, and from the embeddings of several texts to one (prompt ensembling)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

PLACE = "{class}"
"""Where a template takes the class name."""

ROWS = 1024
"""Texts that are compared with all others at a time, so that memory is linear in their number."""


def fill(templates: Sequence[str], words: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the texts of each class: for each of its wordings one text per template, wording by wording.

    Args:
        templates: texts that hold `{class}`.
        words: the wordings of each class.

    """
    return [[template.replace(PLACE, word) for word in wordings for template in templates] for wordings in words]


def average(embeddings: Tensor) -> Tensor:
    """Average the embeddings of each class's texts: normalized, averaged, normalized again.

    Args:
        embeddings: (C, T, D), T texts per class.

    Returns:
        (C, D) float32, L2-normalized.

    """
    return normalize(normalize(embeddings.float(), dim=-1).mean(dim=1), dim=-1)


def average_of(embeddings: Tensor, sizes: Sequence[int]) -> Tensor:
    """Average groups of texts of different sizes, otherwise as `average`.

    Args:
        embeddings: (sum of sizes, D), group by group.
        sizes: texts of each group.

    Returns:
        (number of groups, D) float32, L2-normalized.

    """
    if not sizes:
        return embeddings.new_zeros(0, embeddings.shape[-1])
    return torch.cat([average(part[None]) for part in _split(embeddings, sizes, 0)])


def best_wording(similarity: Tensor, sizes: Sequence[int] | None) -> Tensor:
    """Return the greatest similarity of each group of texts: from (..., sum of sizes) to (..., number of groups)."""
    if sizes is None:
        return similarity
    return torch.stack([part.amax(dim=-1) for part in _split(similarity, sizes, -1)], dim=-1)


def _split(values: Tensor, sizes: Sequence[int], dim: int) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = torch.split(values, list(sizes), dim)
    return parts


def coinciding(embeddings: Tensor, cosine: float) -> list[tuple[int, int]]:
    """Return the pairs of rows (i < j) of (C, D) L2-normalized embeddings whose cosine is above a bound."""
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(embeddings), ROWS):
        close = torch.triu(embeddings[start : start + ROWS] @ embeddings[start:].T > cosine, diagonal=1)
        pairs += [(start + i, start + j) for i, j in close.nonzero().tolist()]
    return pairs
