"""Views of images, decoded once per image, embedded in full batches: whole images, crops and windows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from cutsew.config.cutting import Cut, WindowGridConfig
from cutsew.data.images import read_image
from cutsew.data.loader import batches, in_order
from cutsew.method.crops import EDGES, Square, crop_boxes, whole_box
from cutsew.method.resample import crop_resize_all
from cutsew.models.teachers import Teacher
from cutsew.runtime.batching import join, require_finite, run_each_ahead

Boxes = npt.NDArray[np.float32]

VIEWS_TOGETHER = 16
"""Views that a worker hands over at once: handing over one image takes the main process 2 ms whatever its size."""


@dataclass(frozen=True)
class Look:
    """Views of one side that are cut from each image.

    Attributes:
        square: side in pixels and interpolation.
        passes: the crops.
        whole: the whole image comes before them.

    """

    square: Square
    passes: range
    whole: bool

    @property
    def count(self) -> int:
        """Views of each image."""
        return len(self.passes) + self.whole


class Views(Dataset[tuple[list[torch.Tensor], Boxes]]):
    """The views of each image of a shard; every image is decoded once for all of them."""

    def __init__(self, images: pd.DataFrame, looks: Sequence[Look], settings: Cut) -> None:
        self.images = images
        self.looks = looks
        self.settings = settings

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], Boxes]:
        """Return (P, 3, S, S) uint8 views of each look, and the (sum of P, 5) boxes of all."""
        row = self.images.iloc[index]
        digest = str(row["digest"])
        image = read_image(row["path"], digest=digest)  # embeddings are found by it later
        boxes = [self._boxes(look, digest, *image.size) for look in self.looks]
        views = [crop_resize_all(image, part, *look.square) for look, part in zip(self.looks, boxes, strict=True)]
        return views, np.concatenate(boxes)

    def _boxes(self, look: Look, digest: str, width: int, height: int) -> Boxes:
        whole = [whole_box(width, height)[None]] if look.whole else []
        crops = [crop_boxes(digest, width, height, look.passes, **self.settings.placement())] if look.passes else []
        return np.concatenate([*whole, *crops])


@dataclass(frozen=True)
class Tower:
    """What embeds the views of one look.

    Attributes:
        embed: from (B, 3, S, S) uint8 views to (B, D) on the device, or (B, V, D) where it gives V of each view.
        batch_size: B.
        vectors: V.

    """

    embed: Callable[[torch.Tensor], torch.Tensor]
    batch_size: int
    vectors: int = 1


def embed_block(
    images: pd.DataFrame,
    model: Teacher,
    settings: Cut,
    passes: range,
    batch_size: int,
    workers: int,
    *,
    whole: bool,
) -> tuple[npt.NDArray[np.float16] | None, npt.NDArray[np.float16], Boxes]:
    """Embed a block of regions of each image, and the whole images; every image is decoded once.

    Args:
        images: n rows of the manifest.
        model: the teacher.
        settings: of the crops.
        passes: P consecutive ones; of layout windows, all or none.
        batch_size: views of the teacher's own side in a batch; as many more pixels fit of smaller ones.
        workers: processes that decode.
        whole: the whole images too.

    Returns:
        (n, D) embeddings of the whole images or None, (P, n, D) of the regions and their (P, n, 5) boxes.

    """
    side, interpolation = model.image_size, model.preprocessing.interpolation
    layout = settings.windows if isinstance(settings, WindowGridConfig) and passes else None
    windows = model.windows(layout) if layout is not None else None
    parts = [] if windows is not None else [(run, at) for run, at in settings.by_side(passes, side) if run]
    merged = whole and bool(parts) and parts[0][1] == side
    of_grid = windows is not None and windows.whole  # the larger view gives the whole image's embedding too
    looks = [Look(Square(side, interpolation), range(0), whole=True)] if whole and not merged and not of_grid else []
    looks += [Look(Square(at, interpolation), run, merged and i == 0) for i, (run, at) in enumerate(parts)]
    sides = [look.square.size for look in looks]
    towers = [Tower(model.at_side(at), max(1, int(batch_size * (side / at) ** 2))) for at in sides]
    if windows is not None and layout is not None:
        looks.append(Look(Square(windows.image_size, interpolation), range(0), whole=True))
        at_a_time = max(1, int(batch_size / layout.scale**2))  # a larger image takes as much more memory
        towers.append(Tower(windows.embed_on_device, at_a_time, windows.vectors))
    embeddings, boxes = embed_views(Views(images, looks, settings), towers, model.device, model.width, workers)
    wholes = embeddings[0] if whole else None
    crops = embeddings[int(whole) :]
    if windows is None:
        return wholes, crops, boxes[int(whole) :]
    return wholes, crops, np.stack([windows.boxes(int(w), int(h)) for w, h in boxes[-1, :, 2:4]], axis=1)


def embed_views(
    dataset: Views, towers: Sequence[Tower], device: str, width: int, workers: int
) -> tuple[npt.NDArray[np.float16], Boxes]:
    """Embed all views: (P, n, D) float16, look by look, and the boxes of the views (Q, n, 5).

    Args:
        dataset: n images and their looks.
        towers: one for each look.
        device: cpu, cuda or mps.
        width: D.
        workers: processes that decode.

    Raises:
        UserError: an image is bad, or an embedding is not finite.

    """
    counts = [look.count * tower.vectors for look, tower in zip(dataset.looks, towers, strict=True)]
    starts = np.cumsum([0, *counts])
    embeddings = np.empty((int(starts[-1]), len(dataset), width), dtype=np.float16)
    boxes = np.empty((sum(look.count for look in dataset.looks), len(dataset), len(EDGES)), dtype=np.float32)
    full = _batches(_grouped(dataset, workers), boxes, towers)
    for (look, start), vectors in run_each_ahead(full, device):
        with np.errstate(over="ignore"):
            stored = vectors.numpy().reshape(-1, width).astype(np.float16)  # may be infinite where the float32 is not
        first = start * towers[look].vectors
        image, view = np.divmod(np.arange(first, first + len(stored)), counts[look])
        if not np.isfinite(stored).all():
            bad = int(np.argmin(np.isfinite(stored).all(axis=1)))
            name = str(dataset.images.iloc[image[bad]]["path"])
            require_finite(stored[bad][None], [name], f"the teacher's embedding of view {starts[look] + view[bad]}")
        embeddings[starts[look] + view, image] = stored
    return embeddings, boxes


def _grouped(dataset: Views, workers: int) -> Iterator[tuple[list[torch.Tensor], Boxes]]:
    """Read the views of a few images at a time: of each look (g P, 3, S, S), image by image, and all boxes."""
    keys = in_order(len(dataset), max(1, VIEWS_TOGETHER // sum(look.count for look in dataset.looks)))
    with tqdm(total=len(dataset), desc="encode", unit="image") as bar:
        for views, boxes in batches(dataset.__getitem__, len(dataset), keys, _joined, workers):
            yield views, boxes
            bar.update(boxes.shape[1])


def _joined(images: list[tuple[list[torch.Tensor], Boxes]]) -> tuple[list[torch.Tensor], Boxes]:
    views, boxes = zip(*images, strict=True)
    return [join(parts, "cpu") for parts in zip(*views, strict=True)], np.stack(boxes, axis=1)


def _batches(
    groups: Iterable[tuple[list[torch.Tensor], Boxes]], boxes: Boxes, towers: Sequence[Tower]
) -> Iterator[tuple[tuple[int, int], Callable[[torch.Tensor], torch.Tensor], list[torch.Tensor]]]:
    """Regroup the views of groups of images into full batches of one look each; fill in the boxes on the way.

    Yields:
        Number of the look and of its first view, what embeds them, and the views, in parts.

    """
    waiting = [Waiting(tower.batch_size) for tower in towers]
    image = 0
    for looks, its_boxes in groups:
        boxes[:, image : image + its_boxes.shape[1]] = its_boxes
        image += its_boxes.shape[1]
        for number, views in enumerate(looks):
            for start, batch in waiting[number].add(views):
                yield (number, start), towers[number].embed, batch
    for number, rest in enumerate(waiting):
        for start, batch in rest.flush():
            yield (number, start), towers[number].embed, batch


class Waiting:
    """Views of one look that wait until a batch is full.

    Args:
        batch_size: of a full batch.

    """

    def __init__(self, batch_size: int) -> None:
        self._size = batch_size
        self._parts: list[torch.Tensor] = []
        self._start = self._held = 0

    def add(self, views: torch.Tensor) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """Take views, and yield the batches that they fill, in parts, with the number of the first view of each."""
        while self._held + len(views) >= self._size:
            taken = self._size - self._held
            self._parts.append(views[:taken])
            yield from self.flush()
            views = views[taken:]
        if len(views):
            self._parts.append(views)
            self._held += len(views)

    def flush(self) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """Yield what waits as one batch, if anything does."""
        parts, start = self._parts, self._start
        self._parts, self._held, self._start = [], 0, start + sum(map(len, parts))
        if parts:
            yield start, parts
