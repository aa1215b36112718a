"""From class names to texts, and from the embeddings of several texts to one (prompt ensembling)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

PLACE = "{class}"
"""Where a template takes the class name."""


def fill(templates: Sequence[str], names: Mapping[str, str], classes: Sequence[str]) -> list[list[str]]:
    """Return the texts of each class: one list per class, with a text per template.

    Args:
        templates: texts that hold `{class}`.
        names: other wordings of some classes.
        classes: names of the classes.

    """
    return [[template.replace(PLACE, names.get(name, name)) for template in templates] for name in classes]


def average(embeddings: Tensor) -> Tensor:
    """Average the embeddings of each class's texts: normalised, averaged, normalised again.

    Args:
        embeddings: (C, T, D), T texts per class.

    Returns:
        (C, D) float32, L2-normalised.

    """
    return normalize(normalize(embeddings.float(), dim=-1).mean(dim=1), dim=-1)


def coinciding(embeddings: Tensor, cosine: float) -> list[tuple[int, int]]:
    """Return the pairs of rows (i < j) of (C, D) L2-normalised embeddings whose cosine is above a bound."""
    close = torch.triu(embeddings @ embeddings.T > cosine, diagonal=1)
    return [(int(i), int(j)) for i, j in close.nonzero()]
