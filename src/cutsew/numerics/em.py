"""Label blending and the two losses of interactive cutting and sewing (paper, Eq. 13 and 17-20)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


class Blend(NamedTuple):
    """Blended labels.

    Attributes:
        z: (B, C), the largest logit of each class over an image's sources.
        source: (B, C) int64 in [0, K), which source gave it.

    """

    z: Tensor
    source: Tensor


def blend(z: Tensor) -> Blend:
    """Take each class's largest logit over the background and the overlays of a sewn image (Eq. 13).

    The gradient of each class goes to exactly one source, the winner (Eq. 18-19). Where sources tie, the first one
    wins: the background before the overlays, overlays in the order in which they were pasted.

    Args:
        z: (B, K, C) float logits; source 0 is the background. An image with fewer sources repeats its background,
            which then wins ties against its copies.

    """
    source = z.detach().max(dim=1).indices  # torch promises the first of equals
    return Blend(z.gather(1, source[:, None])[:, 0], source)


def m_loss(p: Tensor, z: Tensor, strong: Tensor | None = None, strong_weight: float = 0.0) -> Tensor:
    """M-step: binary cross-entropy of the student against the blended labels, which get no gradient (Eq. 20).

    Args:
        p: (B, C) logits of the weak view.
        z: (B, C) blended label logits.
        strong: (B, C) logits of the strong view; None where there is none.
        strong_weight: weight of the strong view's loss (released code: 0.7; the paper has none).

    Returns:
        Scalar, mean over images and classes.

    """
    target = torch.sigmoid(z.detach())
    loss = binary_cross_entropy_with_logits(p, target)
    if strong is not None:
        loss = loss + strong_weight * binary_cross_entropy_with_logits(strong, target)
    return loss


def e_loss(z: Tensor, p: Tensor) -> Tensor:
    """E-step: binary cross-entropy of the blended labels against the student, which gets no gradient (Eq. 19).

    Args:
        z: (B, C) blended label logits.
        p: (B, C) student logits of the weak view.

    Returns:
        Scalar, mean over images and classes.

    """
    return binary_cross_entropy_with_logits(z, torch.sigmoid(p.detach()))
