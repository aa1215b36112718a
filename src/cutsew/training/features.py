"""Features of the training batches: a chain of sources, each of which wraps the next.

    PlainFeatures           fills in the features of images onto which nothing was pasted, computed once
      CachedFeatures        reads what an earlier training left on disk, and stores the rest
        DistributedFeatures gathers the shards of all processes
          ComputedFeatures  sews images and calls the frozen backbone

A training has the links that it needs: `feature_source` puts them together. Whatever the links, a batch has the same
features, on a CPU bit for bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from cutsew.config.method import Sew
from cutsew.config.training import AdapterTrainingConfig
from cutsew.runtime.batching import worker_pool
from cutsew.training.computed_features import ComputedFeatures, FeatureBatch
from cutsew.training.distributed import ProcessGroup
from cutsew.training.feature_cache import FeatureCache
from cutsew.training.sewing_plan import TrainingImages
from cutsew.training.sewn_dataset import EpochSampler, Keys, SewnDataset

if TYPE_CHECKING:
    from cutsew.models.frozen_backbone import Backbone

KEPT_BYTES = 2 * 2**30
"""Most memory for features of plain images."""
STOP, PLAIN, BATCHES = range(3)
"""What the first process asks of the others."""


class FeatureSource(Protocol):
    """Gives the features of training images."""

    def batches(self, steps: Sequence[int]) -> Iterator[FeatureBatch]:
        """Yield the features of the batch of each step.

        Args:
            steps: ascending; one iterator at a time is in use.

        Raises:
            UserError: an image is bad, the backbone's features are not finite, or another process has ended.

        """
        ...

    def plain(self) -> Tensor:
        """Return the features of all images as they are, (n, D, H, W) float32 in the CPU's memory."""
        ...


class DistributedFeatures:
    """Gathers the shards of all processes in the first one, which asks the others for them.

    Args:
        shards: computes this process's shard.
        group: this process among all.

    """

    def __init__(self, shards: ComputedFeatures, group: ProcessGroup) -> None:
        self._shards, self._group = shards, group
        self._unfinished: Iterator[FeatureBatch] = iter(())

    def batches(self, steps: Sequence[int]) -> Iterator[FeatureBatch]:
        """Ask all processes for all these batches at once, so that they compute ahead, and yield whole batches."""
        if not steps:
            return iter(())
        self._group.broadcast([BATCHES, len(steps)])
        self._group.broadcast(list(steps))
        self._unfinished = (batch for batch in self._gathered(steps) if batch is not None)
        return self._unfinished

    def plain(self) -> Tensor:
        """Ask all processes for the features of all images as they are."""
        self._group.broadcast([PLAIN, 0])
        return torch.cat([part.cpu() for part in self._gathered_plain() if part is not None])

    def serve(self) -> None:
        """Compute, in a process that is not the first, what the first one asks for until it calls `close`."""
        while True:
            request, count = self._group.broadcast([STOP, 0])
            if request == STOP:
                return
            parts = self._gathered_plain() if request == PLAIN else self._gathered(self._group.broadcast([0] * count))
            for _ in parts:
                pass

    def close(self) -> None:
        """Let the other processes end."""
        for _ in self._unfinished:  # they are computing these; each waits until its shard is taken
            pass
        self._group.broadcast([STOP, 0])

    def _gathered(self, steps: Sequence[int]) -> Iterator[FeatureBatch | None]:
        """Yield whole batches in the first process, None in the others."""
        for step, shard in zip(steps, self._shards.batches(steps), strict=True):
            _, start, stop = self._shards.sampler.span(step)
            drawn = self._group.gather(torch.cat([shard.sources, shard.has_weak[:, None]], dim=1), stop - start)
            weak = self._group.gather(shard.weak, stop - start)
            strong = None if shard.strong is None else self._group.gather(shard.strong, stop - start)
            if drawn is None or weak is None:
                yield None
            else:
                drawn = drawn.cpu()
                yield FeatureBatch(drawn[:, :-1], drawn[:, -1].bool(), weak, strong)

    def _gathered_plain(self) -> Iterator[Tensor | None]:
        for features, whole in zip(self._shards.plain_batches(), self._shards.plain_indices(), strict=True):
            yield self._group.gather(features, len(whole))


class CachedFeatures:
    """Reads from disk what an earlier training left there, and stores what it did not.

    Args:
        inner: gives what is not on disk.
        cache: of whole batches.
        local: computes a batch without other processes, where a chunk turns out to be damaged.

    """

    def __init__(self, inner: FeatureSource, cache: FeatureCache, local: ComputedFeatures) -> None:
        self._inner, self._cache, self._local = inner, cache, local

    def batches(self, steps: Sequence[int]) -> Iterator[FeatureBatch]:
        """Yield batches; `inner` is asked for all missing ones at once, so that it computes ahead."""
        sampler = self._local.sampler
        spans = [sampler.span(step) for step in steps]
        known = [self._cache.contains(*span) for span in spans]
        missing = self._inner.batches([step for step, available in zip(steps, known, strict=True) if not available])
        try:
            for step, span, present, keys in zip(steps, spans, known, sampler.batches(steps), strict=True):
                batch = self._read(span, keys) if present else None
                if batch is None:
                    batch = self._local.batch(step) if present else next(missing)
                    self._cache.put(*span[:2], _views(batch))
                yield batch
        finally:
            self._cache.flush()

    def plain(self) -> Tensor:
        """Read the features of all images as they are, or store those of `inner`."""
        features = self._cache.get_plain()
        if features is None:
            features = self._inner.plain()
            self._cache.put_plain(features)
        return features

    def _read(self, span: tuple[int, int, int], keys: Keys) -> FeatureBatch | None:
        """Read a batch; None where a chunk has been lost since it was looked for."""
        views = self._cache.get(*span)
        if views is None:
            return None
        device = self._local.device
        on_device = {name: features.to(device, non_blocking=True) for name, features in views.items()}
        return FeatureBatch(*self._local.planned(keys), on_device["weak"], on_device.get("strong"))


class PlainFeatures:
    """Fills in the features of images onto which nothing was pasted; they are computed once, before the first batch.

    Args:
        inner: gives batches in which they are zero, and the features of plain images.

    """

    def __init__(self, inner: FeatureSource) -> None:
        self._inner = inner
        self._plain: Tensor | None = None

    def batches(self, steps: Sequence[int]) -> Iterator[FeatureBatch]:
        """Yield complete batches."""
        if not steps:
            return
        plain = self.plain()
        for batch in self._inner.batches(steps):
            rows, device = (~batch.has_weak).nonzero()[:, 0], batch.weak.device
            filled_in = plain[batch.sources[rows, 0]].to(device, non_blocking=True)
            batch.weak[rows.to(device, non_blocking=True)] = filled_in
            yield batch._replace(has_weak=torch.ones_like(batch.has_weak))

    def plain(self) -> Tensor:
        """Return the features of all images as they are."""
        if self._plain is None:
            self._plain = self._inner.plain()
        return self._plain


def _views(batch: FeatureBatch) -> dict[str, Tensor]:
    return {"weak": batch.weak} | ({} if batch.strong is None else {"strong": batch.strong})


def computed_features(
    backbone: "Backbone",
    images: TrainingImages,
    sew: Sew,
    train: AdapterTrainingConfig,
    device: str,
    workers: int,
) -> ComputedFeatures:
    """Set up the computation of a training's features; every process of the training does so.

    Args:
        backbone: frozen, on `device`.
        images: n training images.
        sew: how they are sewn.
        train: how many epochs in which batches, the seed, and whether there are strong views.
        device: cpu, cuda or mps.
        workers: processes that decode and sew; they do not change the result.

    """
    feature_bytes = backbone.width * backbone.grid[0] * backbone.grid[1] * 4
    skip_plain = should_cache_plain_features(len(images.paths), feature_bytes, train.num_epochs, sew)
    strong = train.strong_weight > 0
    dataset = SewnDataset(
        images, sew, backbone.square, train.seed, strong=strong, skip_plain=skip_plain, workers=workers
    )
    sampler = EpochSampler(len(images.paths), train.batch_size, train.num_epochs, train.seed)
    return ComputedFeatures(backbone, dataset, sampler, device, workers)


@contextmanager
def feature_source(
    computed: ComputedFeatures, group: ProcessGroup, cache: FeatureCache | None
) -> Iterator[FeatureSource]:
    """Build the chain in the first process; at the end, unless an error ended the training, let the others end too.

    Args:
        computed: the last link.
        group: this process, the first of those that train together.
        cache: of features on disk, or None.

    """
    source: FeatureSource = computed
    distributed = DistributedFeatures(replace(computed, group=group), group) if group.size > 1 else None
    if distributed is not None:
        source = distributed
    if cache is not None:
        source = CachedFeatures(source, cache, computed)
    if computed.dataset.skip_plain:
        source = PlainFeatures(source)
    yield source
    if distributed is not None:
        distributed.close()


def run_feature_worker(computed: ComputedFeatures, group: ProcessGroup) -> None:
    """Compute features in a process that is not the first, until the first one ends the training."""
    if computed.device == "cpu":
        worker_pool()
    DistributedFeatures(replace(computed, group=group), group).serve()


def should_cache_plain_features(images: int, feature_bytes: int, epochs: int, sew: Sew) -> bool:
    """Say whether to compute the features of all plain images once, before the first step.

    It pays where more plain images will be shown than there are images, and their features must fit into memory. It
    depends on the settings alone, so that a resumed training computes what the first one did.
    """
    plain = 1.0 if sew.kind == "none" else 0.0 if sew.at_least_one else 1 - sew.p
    return epochs * plain > 1 and images * feature_bytes <= KEPT_BYTES
