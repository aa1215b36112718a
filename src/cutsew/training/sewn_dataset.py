"""Sewn images in batches, the same whatever the number of workers, and in the order of each epoch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cutsew.config.method import Sew
from cutsew.data.loader import CACHE_BYTES, Images
from cutsew.errors import UserError
from cutsew.method.crops import Square
from cutsew.method.random import keyed_rng, torch_seed
from cutsew.method.sew import Plan, compose
from cutsew.method.student_views import pixels, strong_view, weak_view
from cutsew.training.sewing_plan import TrainingImages, sewing_plan

Rows = npt.NDArray[np.int64]
Keys = list[tuple[int, int]]
"""Of a batch: epoch and index of the background among the training images."""


class SewnSample(NamedTuple):
    """One sewn image.

    Attributes:
        sources: (1 + L,) int64 indices: background, overlays, then the background again as padding.
        weak: (3, S, S) uint8; None where nothing was pasted and the plain image's features are computed elsewhere.
        strong: (3, S, S) uint8; None if no strong view is requested.

    """

    sources: Tensor
    weak: Tensor | None
    strong: Tensor | None


class SewnBatch(NamedTuple):
    """B sewn images, n of them with a weak view: (B, 1 + L), (B,) bool, (n, 3, S, S), (B, 3, S, S)."""

    sources: Tensor
    has_weak: Tensor
    weak: Tensor | None
    strong: Tensor | None


class SewnDataset(Dataset[SewnSample]):
    """The sewn image of each key (epoch, index of its background).

    Args:
        images: the training images.
        sew: how they are sewn.
        square: the student's.
        seed: of the training.
        strong: whether to make strong views.
        skip_plain: whether to leave out the weak view where nothing was pasted.
        workers: processes that share the memory for decoded images.

    """

    def __init__(
        self,
        images: TrainingImages,
        sew: Sew,
        square: Square,
        seed: int,
        *,
        strong: bool,
        skip_plain: bool,
        workers: int,
    ) -> None:
        self.images = images
        self.square = square
        self.strong, self.skip_plain = strong, skip_plain
        self.sew, self._seed = sew, seed
        self._num_sources = 1 if sew.kind == "none" else 1 + sew.max_overlays
        self._decoded = Images(CACHE_BYTES // max(1, workers))

    def __len__(self) -> int:
        """Count the training images."""
        return len(self.images.paths)

    def __getitem__(self, key: tuple[int, int]) -> SewnSample:
        """Draw the plan, compose the image and cut its views.

        Raises:
            UserError: an image cannot be read or has another size than the manifest says.

        """
        epoch, index = key
        drawn = self._plan(key)
        sources = self._sources(index, drawn)
        if self.skip_plain and not self.strong and not len(drawn.overlays):
            return SewnSample(sources, None, None)
        overlays = [self._read(int(overlay)) for overlay in drawn.overlays]
        weak = weak_view(compose(self._read(index), overlays, drawn.boxes), *self.square)
        strong = None
        if self.strong:
            seed = torch_seed(self._seed, "augment", epoch, self.images.digests[index])
            strong = torch.from_numpy(pixels(strong_view(weak, seed)))
        plain = self.skip_plain and not len(drawn.overlays)
        return SewnSample(sources, None if plain else torch.from_numpy(pixels(weak)), strong)

    def plans(self, keys: Keys) -> tuple[Tensor, Tensor]:
        """Return `sources` and `has_weak` of a batch without opening an image."""
        plans = [self._plan(key) for key in keys]
        sources = torch.stack([self._sources(index, drawn) for (_, index), drawn in zip(keys, plans, strict=True)])
        return sources, torch.tensor([not self.skip_plain or len(drawn.overlays) > 0 for drawn in plans])

    def _plan(self, key: tuple[int, int]) -> Plan:
        return sewing_plan(self.images, self.sew, self._seed, *key)

    def _sources(self, index: int, drawn: Plan) -> Tensor:
        sources = [index, *drawn.overlays.tolist()]
        return torch.tensor([*sources, *[index] * (self._num_sources - len(sources))])

    def _read(self, index: int) -> Image.Image:
        path = self.images.paths[index]
        image = self._decoded.read(path)
        if image.size != tuple(self.images.sizes[index]):
            raise UserError(
                f"{path}: its size differs from the manifest's, so the image was changed; rerun the workflow"
            )
        return image


def collate(items: list[SewnSample]) -> SewnBatch:
    """Join sewn images to a batch."""
    weak = [item.weak for item in items if item.weak is not None]
    strong = [item.strong for item in items if item.strong is not None]
    return SewnBatch(
        torch.stack([item.sources for item in items]),
        torch.tensor([item.weak is not None for item in items]),
        torch.stack(weak) if weak else None,
        torch.stack(strong) if strong else None,
    )


@dataclass(frozen=True)
class EpochSampler:
    """Which images the batch of each step shows: every epoch is a permutation of all images, cut into batches.

    Attributes:
        num_images: n training images.
        batch_size: images in a batch.
        num_epochs: how many permutations there are.
        seed: of the training; with the epoch it alone determines the permutation.

    """

    num_images: int
    batch_size: int
    num_epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return steps_per_epoch(self.num_images, self.batch_size)

    def __len__(self) -> int:
        """Count the steps of all epochs."""
        return self.num_epochs * self.steps_per_epoch

    def span(self, step: int) -> tuple[int, int, int]:
        """Return the epoch of a step, and from where to where in the epoch's order its images come."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        last = batch == self.steps_per_epoch - 1
        return epoch, batch * self.batch_size, self.num_images if last else (batch + 1) * self.batch_size

    def batches(self, steps: Iterable[int]) -> Iterator[Keys]:
        """Yield the keys (epoch, index) of the batch of each step; ascending steps draw each epoch's order once."""
        current, order = -1, np.zeros(0, np.int64)
        for step in steps:
            epoch, start, stop = self.span(step)
            if epoch != current:
                current, order = epoch, self._order(epoch)
            yield [(epoch, index) for index in order[start:stop].tolist()]

    def _order(self, epoch: int) -> Rows:
        order: npt.NDArray[Any] = keyed_rng(self.seed, "order", epoch).permutation(self.num_images)
        return order


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Count the batches of an epoch: the incomplete last one is kept, but a single image joins the batch before."""
    full, rest = divmod(images, batch_size)
    return max(1, full + (rest > 1 or (rest == 1 and full == 0)))
