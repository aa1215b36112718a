"""Stage encode: embeddings of one block of crop passes of one shard; of the first one, of the whole images too."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import typer
from torch.utils.data import Dataset
from tqdm import tqdm

from cutsew.config.cutting import Cut, WindowGridConfig, parse_cut
from cutsew.config.networks import parse_teacher
from cutsew.data.images import read_image
from cutsew.data.loader import batches, in_order
from cutsew.method.crops import EDGES, Square, crop_boxes, whole_box
from cutsew.method.resample import crop_resize_all
from cutsew.models import teachers
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.runtime.batching import halving, join, require_finite, run_each_ahead
from cutsew.runtime.device import device_facts, numeric_environment, pick_device
from cutsew.stages.options import BatchOption, DeviceOption, SettingsOption, WorkersOption
from cutsew.storage.chunk_cache import ChunkCache
from cutsew.storage.manifest import read_manifest, shard_digests
from cutsew.storage.zarr_layout import BOXES, CROPS, GLOBAL, view_chunk_file, view_chunk_record, view_specs
from cutsew.storage.zarr_writer import write_chunk

log = logging.getLogger(__name__)

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
        image = read_image(row["path"])
        boxes = [self._boxes(look, str(row["digest"]), *image.size) for look in self.looks]
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


def encode(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    views: Annotated[Path, typer.Argument(help="views.zarr, the group whose chunk files are written")],
    settings: SettingsOption,
    shard: Annotated[int, typer.Option(min=0, help="Which shard of the images.")],
    block: Annotated[
        int, typer.Option(min=0, help="Which block of passes; the first one embeds the whole images too.")
    ] = 0,
    passes: Annotated[int, typer.Option(min=0, help="Number of passes in the block.")] = 0,
    device: DeviceOption = "auto",
    batch_size: BatchOption = 32,
    workers: WorkersOption = 0,
) -> None:
    """Embed a block of crop passes of one shard; with the first block, the whole images too."""
    record = Record("encode", STAGES["encode"].version, settings, [images])
    cutting = parse_cut(settings["cut"])
    shard_size = int(settings["dataset"]["shard_size"])
    rows = read_manifest(images, shard=shard)
    torch_device = pick_device(device)
    model = teachers.build(parse_teacher(settings["teacher"]), torch_device)
    first = block * cutting.block_size
    specs = view_specs(len(rows), model.width, shard_size, passes, cutting.block_size)
    specs = {name: specs[name] for name in ([GLOBAL] if block == 0 else []) + ([CROPS, BOXES] if passes else [])}
    cache = ChunkCache(views, _cache_key(settings, model, torch_device, block, passes))
    digests = rows["digest"].astype(str).tolist()

    def compute(new: list[int]) -> dict[str, npt.NDArray[Any]]:
        whole, crops, boxes = embed_block(
            rows.iloc[new], model, cutting, range(first, first + passes), batch_size, workers, whole=block == 0
        )
        computed: dict[str, Any] = {GLOBAL: whole, CROPS: crops, BOXES: boxes}
        return {name: computed[name] for name in specs}

    values, embedded = cache.complete(digests, specs, compute)
    if embedded < len(rows):
        log.info("%d of %d images are new and were embedded", embedded, len(rows))
    files = {name: view_chunk_file(views, name, shard, None if name == GLOBAL else block) for name in specs}
    written = {name: write_chunk(path, values[name], specs[name]) for name, path in files.items()}
    cache.add(shard, digests, specs, {name: (files[name], digest) for name, digest in written.items()})
    record.facts = {"width": model.width, "image_size": model.image_size, "weights": model.weights_digest}
    record.facts |= {"logit_scale": model.logit_scale, "first_pass": first, "images": len(rows)}
    record.facts |= device_facts(torch_device) | {"batch_size": halving.most or batch_size}
    if cutting.layout == "tiles":
        parts = cutting.by_side(range(first, first + passes), model.image_size)
        record.facts["sides"] = [side for run, side in parts for _ in run]
    record.facts["preprocessing"] = model.preprocessing.describe()
    record.facts["preprocessing_from"] = model.preprocessing.source
    if block == 0:
        record.facts["gflop"] = model.gflop()
    record.work = {"embedded": embedded}
    record.facts["rows"] = shard_digests(rows)[shard]
    outputs = {str(files[name].relative_to(views)): digest for name, digest in written.items()}
    record.write(view_chunk_record(views, shard, block), outputs)


def _cache_key(
    settings: dict[str, Any], model: "teachers.Teacher", device: str, block: int, passes: int
) -> dict[str, Any]:
    """Collect what embeddings depend on besides the images; the size of the shards makes no difference."""
    return {
        "version": STAGES["encode"].version,
        "settings": {name: section for name, section in settings.items() if name != "dataset"},
        "block": block,
        "passes": passes,
        "weights": model.weights_digest,
        "image_size": model.image_size,
        "preprocessing": model.preprocessing.describe(),
        **numeric_environment(device),
    }


def embed_block(
    images: pd.DataFrame,
    model: "teachers.Teacher",
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
