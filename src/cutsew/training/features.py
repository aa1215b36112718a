"""The features of every training batch, computed by all processes of the training and given to the first."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from cutsew.config.method import Sew
from cutsew.config.networks import Train
from cutsew.data.loader import PlainPhoto, batches, in_order
from cutsew.runtime.batching import refuse_not_finite, threads
from cutsew.training.cache_policy import Keeping, open_cache
from cutsew.training.distributed import Team
from cutsew.training.feature_cache import FeatureCache
from cutsew.training.sewing_plan import Album
from cutsew.training.sewn_dataset import Batch, Keys, Sewer, join, remaining_keys, steps_per_epoch

if TYPE_CHECKING:
    from cutsew.models.frozen_backbone import Backbone

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
        keeping: where features are kept from one training to the next; None keeps none.

    """

    def __init__(
        self,
        backbone: "Backbone",
        album: Album,
        sew: Sew,
        train: Train,
        device: str,
        workers: int,
        team: Team,
        keeping: Keeping | None = None,
    ) -> None:
        self._backbone, self._album, self._train = backbone, album, train
        self._device, self._workers, self._team = device, workers, team
        cell = backbone.width * backbone.grid[0] * backbone.grid[1] * 4
        self._keep = worth_keeping(len(album.paths), cell, train.num_epochs, sew)
        strong = train.strong_weight > 0
        self._sewer = Sewer(
            album, sew, backbone.square, train.seed, strong=strong, skip_plain=self._keep, workers=workers
        )
        self._per_epoch = steps_per_epoch(len(album.paths), train.batch_size)
        self.cache: FeatureCache | None = None
        if team.rank == 0:
            self.cache = open_cache(
                keeping,
                backbone,
                album,
                sew,
                train,
                plain=self._keep,
                device=device,
                processes=team.size,
                workers=workers,
            )

    def steps(self, start: int, stop: int | None = None) -> Iterator[Fed]:
        """Give the features of the batches of steps `start` to `stop`; in helping processes give nothing.

        Args:
            start: first step.
            stop: step after the last one; None for all of training. It must be the same in all processes, since each
                waits for the others' shares.

        Raises:
            UserError: a photo is bad, or another process has ended.

        """
        total = self._train.num_epochs * self._per_epoch
        left = range(start, total if stop is None else min(stop, total))
        held = self._held(left)
        kept = self._plain_features() if self._keep and left else None
        sewn = (self._team.share(keys) for keys, known in zip(self._keys(left), held, strict=True) if not known)
        made = batches(self._sewer, len(self._album.paths), sewn, join, self._workers)
        for step, keys, known in zip(left, self._keys(left), held, strict=True):
            fed = self._recalled(step, keys, kept) if known else self._gathered(step, next(made), len(keys), kept)
            if fed is not None:
                yield fed

    def help_along(self, stop: int | None = None) -> None:
        """Compute a helping process's share of all batches that the first process asks for, up to step `stop`."""
        if self._device == "cpu":
            threads()
        for _ in self.steps(self._team.agree(0), stop):
            raise AssertionError("a helper learns nothing")

    def _keys(self, steps: range) -> Iterator[Keys]:
        train = self._train
        keys = remaining_keys(len(self._album.paths), train.batch_size, train.num_epochs, train.seed, steps.start)
        return islice(keys, len(steps))

    def _held(self, steps: range) -> list[bool]:
        """Tell for which steps the first process has all features on disk, so that all leave out the same ones."""
        found = [self.cache is not None and self.cache.held(*self._places(step)) for step in steps]
        return [bool(known) for known in self._team.agree_on_all([int(known) for known in found])]

    def _places(self, step: int) -> tuple[int, int, int]:
        """Return a step's epoch, and from where to where in the epoch's order its photos come."""
        epoch, batch = divmod(step, self._per_epoch)
        size, photos = self._train.batch_size, len(self._album.paths)
        return epoch, batch * size, photos if batch == self._per_epoch - 1 else (batch + 1) * size

    def _recalled(self, step: int, keys: Keys, kept: Tensor | None) -> Fed | None:
        """Read a batch's features from disk; where they turn out to be lost, compute them here."""
        if self.cache is None:
            return None
        found = self.cache.recall(*self._places(step))
        if found is None:
            batch: Batch = next(batches(self._sewer, len(self._album.paths), [keys], join, min(1, self._workers)))
            strong = None if batch.strong is None else self._backbone(batch.strong)
            return self._fed(step, batch.sources, batch.fresh, self._weak(batch), strong, kept)
        sources, fresh = self._sewer.drawn(keys)
        strong = found["strong"].to(self._device) if "strong" in found else None
        return self._put_together(sources, fresh, found["weak"].to(self._device), strong, kept)

    def _gathered(self, step: int, batch: Batch, total: int, kept: Tensor | None) -> Fed | None:
        """Compute this process's share of a batch of `total` photos, and put the batch together."""
        weak = self._weak(batch)
        drawn = self._team.gather(torch.cat([batch.sources, batch.fresh[:, None]], dim=1), total)
        features = self._team.gather(weak, total)
        strong = None if batch.strong is None else self._team.gather(self._backbone(batch.strong), total)
        if drawn is None or features is None:
            return None
        self._refuse_not_finite(drawn[:, :-1], weak=features, strong=strong)
        return self._fed(step, drawn[:, :-1], drawn[:, -1].bool(), features, strong, kept)

    def _fed(
        self, step: int, sources: Tensor, fresh: Tensor, weak: Tensor, strong: Tensor | None, kept: Tensor | None
    ) -> Fed:
        """Keep a batch's features, and put it together."""
        if self.cache is not None:
            self.cache.keep(*self._places(step)[:2], {"weak": weak} | ({} if strong is None else {"strong": strong}))
        return self._put_together(sources, fresh, weak, strong, kept)

    def _put_together(
        self, sources: Tensor, fresh: Tensor, weak: Tensor, strong: Tensor | None, kept: Tensor | None
    ) -> Fed:
        if kept is not None:
            plain = ~fresh.cpu()
            weak[plain.to(self._device)] = kept[sources.cpu()[plain, 0]].to(self._device)
        # The last bits of a convolution depend on how its input lies in memory, and that on who computed it.
        return Fed(sources.to(self._device), weak.contiguous(), strong if strong is None else strong.contiguous())

    def _refuse_not_finite(self, sources: Tensor, **views: Tensor | None) -> None:
        """Name the photo of which the backbone makes no numbers."""
        for view, features in views.items():
            if features is not None and not bool(torch.isfinite(features).all()):
                names = [self._album.paths[row] for row in sources[:, 0].tolist()]
                refuse_not_finite(features.cpu().numpy(), names, f"the backbone's answer to its {view} view")

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
        """Read or compute the features of photos as they are: (n, D, H, W) float32 in the first process's memory."""
        known = None if self.cache is None else self.cache.plain()
        if self._team.agree(int(known is not None)):
            return known
        photos, size = len(self._album.paths), BATCH * self._team.size
        whole = in_order(photos, size)
        shares = [self._team.share(places) for places in whole]
        item = PlainPhoto(self._album.paths, self._backbone.square)
        found = []
        with tqdm(total=photos, desc="features", unit="photo", disable=self._team.rank > 0) as bar:
            for images, places in zip(batches(item, photos, shares, torch.stack, self._workers), whole, strict=True):
                features = self._team.gather(self._backbone(images), len(places))
                if features is not None:
                    found.append(features.cpu())
                bar.update(len(places))
        if not found:
            return None
        whole_album = torch.cat(found)
        if self.cache is not None:
            self.cache.keep_plain(whole_album)
        return whole_album


def worth_keeping(photos: int, feature_bytes: int, epochs: int, sew: Sew) -> bool:
    """Say whether to compute the features of all plain photos once, before the first step.

    It is where more plain photos will come up than there are photos, and where their features fit into memory. It
    depends on the settings alone, so that a resumed training computes what the first one did.
    """
    plain = (0.0 if sew.at_least_one else 1 - sew.p) if sew.enabled else 1.0
    return epochs * plain > 1 and photos * feature_bytes <= KEPT_BYTES
