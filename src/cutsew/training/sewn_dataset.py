"""Sewn photos in batches, the same whatever the number of workers, and in the order of each epoch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cutsew.config.method import Sew
from cutsew.data.loader import CACHE_BYTES, Photos
from cutsew.errors import UserError
from cutsew.method.crops import Square
from cutsew.method.random import generator, torch_seed
from cutsew.method.sew import Plan, compose
from cutsew.method.student_views import pixels, strong_view, weak_view
from cutsew.training.sewing_plan import Album, sewing_plan

Rows = npt.NDArray[np.int64]
Keys = list[tuple[int, int]]
"""Of a batch: epoch and place in the album."""


class Sewn(NamedTuple):
    """One sewn photo.

    Attributes:
        sources: (1 + L,) int64 places in the album: background, overlays, then the background again as padding.
        weak: (3, S, S) uint8; None where nothing was pasted and the plain photo's features are known.
        strong: (3, S, S) uint8; None where no strong view is asked for.

    """

    sources: Tensor
    weak: Tensor | None
    strong: Tensor | None


class Batch(NamedTuple):
    """B sewn photos, n of them with a weak view: (B, 1 + L), (B,) bool, (n, 3, S, S), (B, 3, S, S)."""

    sources: Tensor
    fresh: Tensor
    weak: Tensor | None
    strong: Tensor | None


class Sewer:
    """Makes the sewn photo of a key (epoch, place).

    Args:
        album: the photos.
        sew: how they are sewn.
        square: the student's.
        seed: of the training.
        strong: whether to make strong views.
        skip_plain: whether to leave out the weak view where nothing was pasted.
        workers: processes that share the memory for decoded photos.

    """

    def __init__(
        self, album: Album, sew: Sew, square: Square, seed: int, *, strong: bool, skip_plain: bool, workers: int
    ) -> None:
        self._album, self._sew, self._square, self._seed = album, sew, square, seed
        self._strong, self._skip_plain = strong, skip_plain
        self._photos = Photos(CACHE_BYTES // max(1, workers))

    def __call__(self, key: tuple[int, int]) -> Sewn:
        """Draw the plan, compose the photo and make its views.

        Raises:
            UserError: a photo cannot be read or has another size than the manifest says.

        """
        epoch, place = key
        drawn = self._plan(key)
        sources = self._sources(place, drawn)
        if self._skip_plain and not self._strong and not len(drawn.overlays):
            return Sewn(sources, None, None)
        overlays = [self._read(int(overlay)) for overlay in drawn.overlays]
        weak = weak_view(compose(self._read(place), overlays, drawn.boxes), *self._square)
        strong = None
        if self._strong:
            seed = torch_seed(self._seed, "augment", epoch, self._album.digests[place])
            strong = torch.from_numpy(pixels(strong_view(weak, seed)))
        known = self._skip_plain and not len(drawn.overlays)
        return Sewn(sources, None if known else torch.from_numpy(pixels(weak)), strong)

    def drawn(self, keys: Keys) -> tuple[Tensor, Tensor]:
        """Draw the plans of keys: `sources` and `fresh` as of their Batch, without opening a photo."""
        plans = [self._plan(key) for key in keys]
        sources = torch.stack([self._sources(place, drawn) for (_, place), drawn in zip(keys, plans, strict=True)])
        return sources, torch.tensor([not self._skip_plain or len(drawn.overlays) > 0 for drawn in plans])

    def _plan(self, key: tuple[int, int]) -> Plan:
        return sewing_plan(self._album, self._sew, self._seed, *key)

    def _sources(self, place: int, drawn: Plan) -> Tensor:
        padding = [place] * (1 + self._sew.max_overlays - len(drawn.overlays))
        return torch.tensor([place, *drawn.overlays.tolist(), *padding][: 1 + self._sew.max_overlays])

    def _read(self, place: int) -> Image.Image:
        path = self._album.paths[place]
        image = self._photos.read(path)
        if image.size != tuple(self._album.sizes[place]):
            raise UserError(f"{path}: its size is not the manifest's; it was changed, so run the workflow again")
        return image


def join(items: list[Sewn]) -> Batch:
    """Join sewn photos to a batch."""
    weak = [item.weak for item in items if item.weak is not None]
    strong = [item.strong for item in items if item.strong is not None]
    return Batch(
        torch.stack([item.sources for item in items]),
        torch.tensor([item.weak is not None for item in items]),
        torch.stack(weak) if weak else None,
        torch.stack(strong) if strong else None,
    )


def steps_per_epoch(photos: int, batch_size: int) -> int:
    """Count the batches of an epoch: the incomplete last one is kept, but a single photo joins the batch before."""
    full, rest = divmod(photos, batch_size)
    return max(1, full + (rest > 1 or (rest == 1 and full == 0)))


def epoch_order(photos: int, batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """Cut a permutation of all photos into batches; `seed` and `epoch` alone decide it."""
    order = generator(seed, "order", epoch).permutation(photos)
    steps = steps_per_epoch(photos, batch_size)
    return np.split(order, [batch_size * step for step in range(1, steps)])


def remaining_keys(photos: int, batch_size: int, epochs: int, seed: int, start: int) -> Iterator[Keys]:
    """Give the keys (epoch, place) of each batch from step `start` on."""
    steps = steps_per_epoch(photos, batch_size)
    for epoch in range(start // steps, epochs):
        for batch in epoch_order(photos, batch_size, seed, epoch)[
            start - epoch * steps if start > epoch * steps else 0 :
        ]:
            yield [(epoch, place) for place in batch.tolist()]
