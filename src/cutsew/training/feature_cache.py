"""Features of sewn images kept on disk, in chunk files that several jobs share.

The seed, the images and the settings of sewing determine the sewn images; with the backbone they determine the
features. A digest of all of these names the folder, `<key>.zarr`, so a second training of the same images reads its
features from there and never calls the backbone. They lie in the order in which training shows the images, whatever
the batch size:

- `weak`, `strong` (E, n, D, H, W) float32: of epoch e's images; zeros where nothing was pasted and `plain` has them;
- `plain` (n, D, H, W) float32: of the images as they are, in the order of `TrainingImages`.

Every chunk is one file, replaced atomically and with a checksum, so several jobs write without a lock. A chunk that
is missing or damaged is recomputed. On a disk that is full or read-only the cache stops writing; it never fails a
training.
"""

import logging
import math
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cutsew.storage.zarr_chunks import group_metadata
from cutsew.storage.zarr_layout import ArraySpec
from cutsew.training.feature_chunks import Chunks, Place, Values, remove_stale_tmp, write_whole

log = logging.getLogger(__name__)

CHUNK_BYTES = 16 * 2**20
"""Of the features in one chunk file, about."""
MOST_WRITES = 4
"""Chunks that wait to be written; a training that fills them faster than the disk takes them waits."""
PLAIN = "plain"
DIMENSIONS = ("epoch", "place", "channel", "row", "column")


class Sizes(NamedTuple):
    """What is kept: E epochs of n images with features of D channels on a grid of H x W; whether strong views too."""

    epochs: int
    images: int
    cell: tuple[int, int, int]
    strong: bool
    plain: bool

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views that each sewn image has."""
        return ("weak", "strong") if self.strong else ("weak",)

    def bytes(self, sewn: float) -> float:
        """Bytes of all features before they are packed, where `sewn` is the share of images that are pasted onto."""
        shown = self.epochs * self.images * ((sewn if self.plain else 1.0) + self.strong)
        return 4.0 * math.prod(self.cell) * (shown + self.plain * self.images)


class FeatureCache:
    """The cached features of one plan of sewn images and one backbone.

    Args:
        path: of its folder, `<key>.zarr`.
        depends_on: all that the features depend on, plain JSON.
        sizes: of what is kept.
        readers: threads that decode chunks ahead.

    """

    def __init__(self, path: Path, depends_on: Mapping[str, Any], sizes: Sizes, readers: int = 1) -> None:
        self.path = path
        self._sizes, self._ahead = sizes, max(1, readers)
        self._rows = max(1, min(sizes.images, CHUNK_BYTES // (4 * math.prod(sizes.cell))))
        self._of_epoch = math.ceil(sizes.images / self._rows)
        epochs, images, cell = sizes.epochs, sizes.images, sizes.cell
        spec = ArraySpec((epochs, images, *cell), "float32", DIMENSIONS, (1, self._rows, *cell), quick=True)
        self._views = {name: Chunks(self.path / name, spec) for name in sizes.views}
        spec = ArraySpec((images, *cell), "float32", DIMENSIONS[1:], (self._rows, *cell), quick=True)
        self._plain = Chunks(self.path / PLAIN, spec)
        self._reads: dict[tuple[int, int], Future[dict[str, Values]]] = {}
        self._pool = ThreadPoolExecutor(self._ahead)
        self._writer = ThreadPoolExecutor(1)
        self._writes: deque[Future[None]] = deque()
        self._partial: dict[tuple[str, int, int], PartialChunk] = {}
        self._writable = True
        self._describe(depends_on)

    def contains(self, epoch: int, start: int, stop: int) -> bool:
        """Say whether the images from place `start` to `stop` of an epoch's order have all their chunks."""
        return all((epoch, c) in chunks for chunks in self._views.values() for c in self._chunks(start, stop))

    def get(self, epoch: int, start: int, stop: int) -> dict[str, Tensor] | None:
        """Read features of the images from place `start` to `stop` of an epoch's order.

        Returns:
            Each view's, (stop - start, D, H, W) float32; None where a chunk is gone or damaged.

        """
        result = {name: torch.empty(stop - start, *self._sizes.cell) for name in self._views}
        try:
            for chunk in self._chunks(start, stop):
                first, last = max(start, chunk * self._rows), min(stop, (chunk + 1) * self._rows)
                values = self._read(epoch, chunk)
                for name, features in result.items():
                    inside = slice(first - chunk * self._rows, last - chunk * self._rows)
                    features[first - start : last - start] = torch.from_numpy(values[name][inside])
        except ChunkMissingError:
            return None
        return result

    def put(self, epoch: int, start: int, features: Mapping[str, Tensor]) -> None:
        """Take the features of the images from place `start` on of an epoch's order; chunks that fill up are written.

        A chunk is written once all its images have come, in their order; one that is there already stays as it is.
        Another thread packs and writes it, until `flush` at the latest, while the training goes on.
        """
        if not self._writable:
            return
        for name, rows in features.items():
            stop = start + len(rows)
            for chunk in self._chunks(start, stop):
                if (epoch, chunk) not in self._views[name]:
                    first, last = max(start, chunk * self._rows), min(stop, (chunk + 1) * self._rows)
                    self._fill(name, epoch, chunk, first - chunk * self._rows, rows[first - start : last - start])

    def flush(self) -> None:
        """Wait until all chunks that have filled up are written."""
        while self._writes:
            self._writes.popleft().result()

    def get_plain(self) -> Tensor | None:
        """Read the features of the images as they are, (n, D, H, W) float32; None where a chunk is gone or damaged."""
        if not all((c,) in self._plain for c in range(self._of_epoch)):
            return None
        result = torch.empty(self._sizes.images, *self._sizes.cell)
        for chunk, features in enumerate(torch.split(result, self._rows)):
            values = self._plain.read((chunk,))
            if values is None:
                return None
            features.copy_(torch.from_numpy(values[: len(features)]))
        return result

    def put_plain(self, features: Tensor) -> None:
        """Write the features of the images as they are, (n, D, H, W) float32."""
        for chunk, values in enumerate(torch.split(features, self._rows)):
            if self._writable and (chunk,) not in self._plain:
                self._write(self._plain, (chunk,), values.numpy())

    def _chunks(self, start: int, stop: int) -> range:
        return range(start // self._rows, -(-stop // self._rows))

    def _read(self, epoch: int, chunk: int) -> dict[str, Values]:
        """Wait for a chunk of each view, having requested those after it; drop those before it."""
        number = epoch * self._of_epoch + chunk
        for later in range(number, number + 1 + self._ahead):
            place = divmod(later, self._of_epoch)
            if place not in self._reads and all(place in chunks for chunks in self._views.values()):
                self._reads[place] = self._pool.submit(self._read_views, place)
        for earlier in [place for place in self._reads if place < (epoch, chunk)]:
            del self._reads[earlier]
        if (epoch, chunk) not in self._reads:
            raise ChunkMissingError
        return self._reads[epoch, chunk].result()

    def _read_views(self, place: tuple[int, int]) -> dict[str, Values]:
        result = {name: chunks.read(place) for name, chunks in self._views.items()}
        whole = {name: values[0] for name, values in result.items() if values is not None}
        if len(whole) < len(result):
            raise ChunkMissingError
        return whole

    def _fill(self, name: str, epoch: int, chunk: int, offset: int, rows: Tensor) -> None:
        for place in [p for p in self._partial if p[0] == name and p[1:] < (epoch, chunk)]:
            del self._partial[place]  # it lacks its beginning: training went on from a checkpoint within it
        whole = min(self._rows, self._sizes.images - chunk * self._rows)
        on_gpu = rows.device.type == "cuda"
        if (name, epoch, chunk) not in self._partial:
            self._partial[name, epoch, chunk] = PartialChunk.empty(whole, self._sizes.cell, pinned=on_gpu)
        partial = self._partial[name, epoch, chunk]
        partial.values[offset : offset + len(rows)].copy_(rows, non_blocking=True)
        partial.present[offset : offset + len(rows)] = True
        if partial.present.all():
            del self._partial[name, epoch, chunk]
            copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
            if copied is not None:
                copied.record()
            self._writes.append(self._writer.submit(self._write_filled, name, (epoch, chunk), partial.values, copied))
            while len(self._writes) > MOST_WRITES:
                self._writes.popleft().result()

    def _write_filled(self, name: str, place: Place, values: Tensor, copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        if self._writable:
            self._write(self._views[name], place, values.numpy()[None])

    def _write(self, chunks: Chunks, place: tuple[int, ...], values: Values) -> None:
        try:
            chunks.write(place, values)
        except OSError as error:
            self._stop(error)

    def _describe(self, depends_on: Mapping[str, Any]) -> None:
        """Write what makes the folder a Zarr that opens; the chunks are read and written without it."""
        try:
            remove_stale_tmp(self.path)
            for chunks in (*self._views.values(), *([self._plain] if self._sizes.plain else [])):
                chunks.describe()
            write_whole(self.path / "zarr.json", group_metadata(depends_on))
        except OSError as error:
            self._stop(error)

    def _stop(self, error: OSError) -> None:
        log.warning("%s: cannot be written (%s); training continues without it", self.path, error.strerror or error)
        self._writable = False
        self._partial.clear()


class ChunkMissingError(Exception):
    """A chunk is gone or damaged."""


class PartialChunk(NamedTuple):
    """A chunk that is being filled: its features, and which of its images are present."""

    values: Tensor
    present: Tensor

    @classmethod
    def empty(cls, rows: int, cell: tuple[int, int, int], *, pinned: bool) -> "PartialChunk":
        """Start one of `rows` images, in memory to which a GPU copies without being waited for, or not."""
        return cls(torch.empty(rows, *cell, pin_memory=pinned), torch.zeros(rows, dtype=torch.bool))
