"""Features of the training batches, those of plain photos computed once where that saves work."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from cutsew.config.method import Sew
from cutsew.training.photos import plain_batches
from cutsew.training.sewn import Batch

if TYPE_CHECKING:
    from cutsew.backbones.base import Backbone

KEPT_BYTES = 2 * 2**30
"""Most memory for kept features."""
BATCH = 32


def worth_keeping(photos: int, feature_bytes: int, epochs: int, sew: Sew) -> bool:
    """Say whether to compute the features of all plain photos once, before the first step.

    It is where more plain photos will come up than there are photos, and where their features fit into memory. It
    depends on the settings alone, so that a resumed training computes what the first one did.
    """
    plain = (0.0 if sew.at_least_one else 1 - sew.p) if sew.enabled else 1.0
    return epochs * plain > 1 and photos * feature_bytes <= KEPT_BYTES


def plain_features(backbone: "Backbone", paths: list[str], workers: int) -> Tensor:
    """Compute the features of all photos as they are, (n, D, H, W) float32 in main memory."""
    found = []
    with tqdm(total=len(paths), desc="features", unit="photo") as bar:
        for images in plain_batches(paths, backbone.image_size, BATCH, workers):
            found.append(backbone(images).cpu())
            bar.update(len(images))
    return torch.cat(found)


def batch_features(backbone: "Backbone", batch: Batch, kept: Tensor | None, device: str) -> Tensor:
    """Put together the features of a batch's weak views, (B, D, H, W)."""
    fresh: Tensor | None = None if batch.weak is None else backbone(batch.weak)
    if kept is None:
        if fresh is None:
            raise ValueError("a batch without weak views needs kept features")
        return fresh
    features = kept[batch.sources[:, 0]].to(device)
    if fresh is not None:
        features[batch.fresh.to(device)] = fresh
    return features
