"""Features of training batches as they are computed: images are sewn in worker processes and seen by the backbone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from cutsew.data.loader import PlainImage, batches, in_order
from cutsew.runtime.batching import join, require_finite
from cutsew.training.distributed import SINGLE, ProcessGroup
from cutsew.training.sewn_dataset import EpochSampler, Keys, SewnBatch, SewnDataset, collate

if TYPE_CHECKING:
    from cutsew.models.frozen_backbone import Backbone

PLAIN_BATCH_SIZE = 32
"""Plain images in one call of the backbone, in each process."""
CALL_IMAGES = 64
"""Images in one call of the backbone on a GPU, which small batches leave idle while the host launches kernels."""


class FeatureBatch(NamedTuple):
    """What one step learns from: features on their device; what is drawn on the CPU, where reading it waits for no GPU.

    Attributes:
        sources: (B, 1 + L) int64 rows of Z, background first.
        has_weak: (B,) bool; False where `weak` is zero because nothing was pasted and `PlainFeatures` fills it in.
        weak: (B, D, H, W) float32 features of the sewn images, contiguous.
        strong: those of their strong views, or None.

    """

    sources: Tensor
    has_weak: Tensor
    weak: Tensor
    strong: Tensor | None


class FiniteCheck(NamedTuple):
    """Whether features are finite, asked of their device without waiting for the answer.

    Attributes:
        features: (n, D, H, W) on their device.
        finite: () bool in the CPU's memory, once `copied` has happened.
        copied: on a GPU, when `finite` is there.
        background: (n,) indices of the images.
        view: weak or strong.

    """

    features: Tensor
    finite: Tensor
    copied: "torch.cuda.Event | None"
    background: Tensor
    view: str

    @classmethod
    def of(cls, features: Tensor, background: Tensor, view: str) -> "FiniteCheck":
        """Ask."""
        finite = torch.isfinite(features).all().to("cpu", non_blocking=True)
        copied = None
        if features.device.type == "cuda":
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        return cls(features, finite, copied, background, view)


class BackboneCall(NamedTuple):
    """Features that are being computed.

    Attributes:
        batches: of the steps.
        checks: of the features.
        names: gives the paths of images by their indices.

    """

    batches: list[FeatureBatch]
    checks: list[FiniteCheck]
    names: Callable[[list[int]], list[str]]

    def finish(self) -> list[FeatureBatch]:
        """Wait for the features.

        Raises:
            UserError: some are not finite; the first image of which is named.

        """
        for check in self.checks:
            if check.copied is not None:
                check.copied.synchronize()
            if not bool(check.finite):
                names = self.names(check.background.tolist())
                require_finite(check.features.cpu().numpy(), names, f"the backbone's answer to its {check.view} view")
        return self.batches


@dataclass(frozen=True)
class ComputedFeatures:
    """Sews images in worker processes and calls the backbone on them.

    Attributes:
        backbone: frozen, on `device`.
        dataset: of sewn images.
        sampler: which of them each step shows.
        device: cpu, cuda or mps.
        workers: processes that decode and sew; they do not change the result.
        group: if of several processes, only this one's shard of each batch is computed.

    """

    backbone: "Backbone"
    dataset: SewnDataset
    sampler: EpochSampler
    device: str
    workers: int
    group: ProcessGroup = SINGLE

    def batches(self, steps: Sequence[int]) -> Iterator[FeatureBatch]:
        """Yield the features of this process's shard of each batch."""
        keys = (self.group.shard(keys) for keys in self.sampler.batches(steps))
        loaded = batches(self.dataset.__getitem__, len(self.dataset), keys, collate, self.workers)
        queued: BackboneCall | None = None
        while call := self._call(list(islice(loaded, self.steps_per_call))):
            if self.device != "cuda":
                yield from call.finish()
                continue
            if queued is not None:
                yield from queued.finish()
            queued = call  # computed while the training takes the steps of the call before
        if queued is not None:
            yield from queued.finish()

    @property
    def steps_per_call(self) -> int:
        """Steps whose images share a call of the backbone; 1 on a CPU, where it would gain nothing."""
        shard = -(-self.sampler.batch_size // self.group.size)
        return max(1, CALL_IMAGES // shard) if self.device == "cuda" else 1

    def batch(self, step: int) -> FeatureBatch:
        """Compute one batch on its own, with at most one worker process."""
        return next(replace(self, workers=min(1, self.workers)).batches([step]))

    def plain(self) -> Tensor:
        """Compute the features of all images as they are."""
        return torch.cat([part.cpu() for part in self.plain_batches()])

    def plain_batches(self) -> Iterator[Tensor]:
        """Yield the features of this process's shards of all images as they are, one for each of `plain_indices`."""
        item = PlainImage(self.dataset.images.paths, self.dataset.square)
        indices = self.plain_indices()
        shards = [self.group.shard(whole) for whole in indices]
        views = batches(item, len(self.dataset), shards, torch.stack, self.workers)
        with tqdm(total=len(self.dataset), desc="features", unit="image", disable=self.group.rank > 0) as bar:
            for pixels, shard, whole in zip(views, shards, indices, strict=True):
                yield self._encode(pixels, torch.tensor(shard), "weak")
                bar.update(len(whole))

    def plain_indices(self) -> list[list[int]]:
        """Cut the indices of all images into the batches of all processes together."""
        return in_order(len(self.dataset), PLAIN_BATCH_SIZE * self.group.size)

    def planned(self, keys: Keys) -> tuple[Tensor, Tensor]:
        """Return a batch's `sources` and `has_weak` without opening an image."""
        return self.dataset.plans(keys)

    def _call(self, steps: list[SewnBatch]) -> BackboneCall | None:
        """Start to compute the features of some steps, with one call of the backbone for each view; None for none."""
        if not steps:
            return None
        checks: list[FiniteCheck] = []
        weak = self._views([(step.weak, step.sources[step.has_weak, 0]) for step in steps], "weak", checks)
        strong = self._views([(step.strong, step.sources[:, 0]) for step in steps], "strong", checks)
        results = []
        for step, of_weak, of_strong in zip(steps, weak, strong, strict=True):
            # Contiguous, since the last bits of the adapter's convolution depend on how its input lies in memory.
            features = torch.zeros(len(step.sources), self.backbone.width, *self.backbone.grid, device=self.device)
            if of_weak is not None:
                features[step.has_weak.nonzero()[:, 0].to(self.device, non_blocking=True)] = of_weak
            strong_features = None if of_strong is None else of_strong.contiguous()
            results.append(FeatureBatch(step.sources, step.has_weak, features, strong_features))
        return BackboneCall(results, checks, self._names)

    def _views(
        self, steps: list[tuple[Tensor | None, Tensor]], view: str, checks: list[FiniteCheck]
    ) -> list[Tensor | None]:
        """Return the features of a view in each step, of those that have it, and note how to check them.

        Args:
            steps: pixels of the view, or None, and the indices of their backgrounds.
            view: weak or strong.
            checks: is added to.

        """
        parts = [pixels for pixels, _ in steps if pixels is not None]
        if not parts:
            return [None] * len(steps)
        backgrounds = torch.cat([background for pixels, background in steps if pixels is not None])
        features: Tensor = self.backbone(join(parts, self.device))
        checks.append(FiniteCheck.of(features, backgrounds, view))
        split = iter(torch.split(features, [len(part) for part in parts]))
        return [None if pixels is None else next(split) for pixels, _ in steps]

    def _encode(self, pixels: Tensor, background: Tensor, view: str) -> Tensor:
        """Call the backbone; where features are not finite, name the image."""
        checks: list[FiniteCheck] = []
        (features,) = self._views([(pixels, background)], view, checks)
        BackboneCall([], checks, self._names).finish()
        assert features is not None  # noqa: S101 - there are pixels
        return features

    def _names(self, indices: list[int]) -> list[str]:
        return [self.dataset.images.paths[index] for index in indices]
