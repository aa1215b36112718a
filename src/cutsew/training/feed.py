"""The features of every training batch, computed by all processes of the training and given to the first."""

from collections.abc import Iterator
from itertools import tee
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from cutsew.config.method import Sew
from cutsew.config.student import Train
from cutsew.training.album import Album
from cutsew.training.photos import PlainPhoto, batches
from cutsew.training.sewn import Batch, Sewer, join, remaining_keys, steps_per_epoch
from cutsew.training.team import Team

if TYPE_CHECKING:
    from cutsew.backbones.base import Backbone

KEPT_BYTES = 2 * 2**30
"""Most memory for kept features."""
BATCH = 32
"""Plain photos in one call of the backbone, in each process."""


class Fed(NamedTuple):
    """What one step learns from, on its device.

    Attributes:
        sources: (B, 1 + L) int64 rows of Z, background first.
        weak: (B, D, H, W) float32 features of the sewn photos.
        strong: those of their strong views, or None.

    """

    sources: Tensor
    weak: Tensor
    strong: Tensor | None


class Feed:
    """Computes the features of the training batches, those of plain photos once where that saves work.

    Args:
        backbone: frozen, on `device`.
        album: n training photos and which of them are pasted.
        sew: how photos are sewn.
        train: how it is trained.
        device: cpu or cuda.
        workers: processes that decode and sew; they do not change the result.
        team: this process among those that train together.

    """

    def __init__(
        self, backbone: "Backbone", album: Album, sew: Sew, train: Train, device: str, workers: int, team: Team
    ) -> None:
        self._backbone, self._album, self._train = backbone, album, train
        self._device, self._workers, self._team = device, workers, team
        cell = backbone.width * backbone.grid[0] * backbone.grid[1] * 4
        self._keep = worth_keeping(len(album.paths), cell, train.epochs, sew)
        strong = train.strong_weight > 0
        self._sewer = Sewer(
            album, sew, backbone.image_size, train.seed, strong=strong, skip_plain=self._keep, workers=workers
        )

    def steps(self, start: int) -> Iterator[Fed]:
        """Give the features of every batch from step `start` on; in helping processes give nothing.

        Raises:
            UserError: a photo is bad, or another process has ended.

        """
        photos, train = len(self._album.paths), self._train
        done = start == train.epochs * steps_per_epoch(photos, train.batch_size)
        kept = self._plain_features() if self._keep and not done else None
        keys, wholes = tee(remaining_keys(photos, train.batch_size, train.epochs, train.seed, start))
        made = batches(self._sewer, photos, map(self._team.share, keys), join, self._workers)
        for batch, whole in zip(made, wholes, strict=True):
            fed = self._gathered(batch, len(whole), kept)
            if fed is not None:
                yield fed

    def _gathered(self, batch: Batch, total: int, kept: Tensor | None) -> Fed | None:
        """Compute this process's share of a batch of `total` photos, and put the batch together."""
        weak = self._weak(batch)
        drawn = self._team.gather(torch.cat([batch.sources, batch.fresh[:, None]], dim=1), total)
        features = self._team.gather(weak, total)
        strong = None if batch.strong is None else self._team.gather(self._backbone(batch.strong), total)
        if drawn is None or features is None:
            return None
        sources, fresh = drawn[:, :-1], drawn[:, -1].bool()
        if kept is not None:
            plain = ~fresh.cpu()
            features[plain.to(self._device)] = kept[sources.cpu()[plain, 0]].to(self._device)
        # The last bits of a convolution depend on how its input lies in memory, and that on who computed it.
        return Fed(sources.to(self._device), features.contiguous(), strong if strong is None else strong.contiguous())

    def _weak(self, batch: Batch) -> Tensor:
        """Compute the features of a share's weak views, (n, D, H, W); zeros where the plain photo's are kept."""
        backbone = self._backbone
        if batch.weak is not None and len(batch.weak) == len(batch.sources):
            whole: Tensor = backbone(batch.weak)
            return whole
        weak = torch.zeros(len(batch.sources), backbone.width, *backbone.grid, device=self._device)
        if batch.weak is not None:
            weak[batch.fresh.to(self._device)] = backbone(batch.weak)
        return weak

    def _plain_features(self) -> Tensor | None:
        """Compute the features of all photos as they are: (n, D, H, W) float32 in the first process's memory."""
        photos, size = len(self._album.paths), BATCH * self._team.size
        whole = [list(range(start, min(start + size, photos))) for start in range(0, photos, size)]
        shares = [self._team.share(places) for places in whole]
        item = PlainPhoto(self._album.paths, self._backbone.image_size)
        found = []
        with tqdm(total=photos, desc="features", unit="photo", disable=self._team.rank > 0) as bar:
            for images, places in zip(batches(item, photos, shares, torch.stack, self._workers), whole, strict=True):
                features = self._team.gather(self._backbone(images), len(places))
                if features is not None:
                    found.append(features.cpu())
                bar.update(len(places))
        return torch.cat(found) if found else None


def worth_keeping(photos: int, feature_bytes: int, epochs: int, sew: Sew) -> bool:
    """Say whether to compute the features of all plain photos once, before the first step.

    It is where more plain photos will come up than there are photos, and where their features fit into memory. It
    depends on the settings alone, so that a resumed training computes what the first one did.
    """
    plain = (0.0 if sew.at_least_one else 1 - sew.p) if sew.enabled else 1.0
    return epochs * plain > 1 and photos * feature_bytes <= KEPT_BYTES
