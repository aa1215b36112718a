"""Stage encode: embeddings of whole images, or of a block of crop passes, of one shard."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
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
from cutsew.runtime.batching import halving, require_finite, run_ahead
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import BatchOption, DeviceOption, SettingsOption, WorkersOption
from cutsew.storage.manifest import read_manifest, shard_digests
from cutsew.storage.zarr_layout import BOXES, CROPS, GLOBAL, view_chunk_file, view_chunk_record, view_specs
from cutsew.storage.zarr_writer import write_chunk

Boxes = npt.NDArray[np.float32]


VIEWS_TOGETHER = 16
"""Views that a worker hands over at once: handing over one image takes the main process 2 ms whatever its size."""


class Views(Dataset[tuple[torch.Tensor, Boxes]]):
    """The views of each image of a shard; every image is decoded once for all of them."""

    def __init__(self, images: pd.DataFrame, square: Square, passes: range | None, settings: Cut) -> None:
        self.images = images
        self.square = square
        self.passes = passes
        self.settings = settings

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Boxes]:
        """Return (P, 3, S, S) uint8 views and their (P, 5) boxes."""
        row = self.images.iloc[index]
        image = read_image(row["path"])
        boxes = self._boxes(str(row["digest"]), *image.size)
        return crop_resize_all(image, boxes, *self.square), boxes

    def _boxes(self, digest: str, width: int, height: int) -> Boxes:
        if self.passes is None:
            return whole_box(width, height)[None]
        return crop_boxes(digest, width, height, self.passes, **self.settings.placement())


def encode(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    views: Annotated[Path, typer.Argument(help="views.zarr, the group whose chunk files are written")],
    settings: SettingsOption,
    shard: Annotated[int, typer.Option(min=0, help="Which shard of the images.")],
    block: Annotated[int | None, typer.Option(min=0, help="Which block of passes; none encodes whole images.")] = None,
    passes: Annotated[int, typer.Option(min=1, help="How many passes of the block there are.")] = 1,
    device: DeviceOption = "auto",
    batch_size: BatchOption = 32,
    workers: WorkersOption = 0,
) -> None:
    """Embed the whole images, or a block of crop passes, of one shard."""
    record = Record("encode", STAGES["encode"].version, settings, [images])
    cutting = parse_cut(settings["cut"])
    shard_size = int(settings["dataset"]["shard_size"])
    rows = read_manifest(images, shard=shard)
    torch_device = pick_device(device)
    model = teachers.build(parse_teacher(settings["teacher"]), torch_device)
    first = 0 if block is None else block * cutting.block_size
    if block is not None and cutting.layout == "windows":
        embeddings, boxes = embed_windows(rows, model, cutting, batch_size, workers)
    else:
        parts = cutting.by_side(range(first, first + passes), model.image_size)
        parts_to_embed = [(None, model.image_size)] if block is None else parts
        embeddings, boxes = embed_parts(rows, model, cutting, parts_to_embed, batch_size, workers)

    layout = view_specs(len(rows), model.width, shard_size, first + passes, cutting.block_size)
    outputs: dict[str, tuple[str, npt.NDArray[Any]]]
    outputs = (
        {GLOBAL: (GLOBAL, embeddings[0])} if block is None else {CROPS: (CROPS, embeddings), BOXES: (BOXES, boxes)}
    )
    written = {}
    for name, (array, values) in outputs.items():
        path = view_chunk_file(views, array, shard, block)
        written[str(path.relative_to(views))] = write_chunk(path, values, layout[name])
    record.facts = {"width": model.width, "image_size": model.image_size, "weights": model.weights_digest}
    record.facts |= {"logit_scale": model.logit_scale, "first_pass": first, "images": len(rows)}
    record.facts |= device_facts(torch_device) | {"batch_size": halving.most or batch_size}
    if block is not None and cutting.layout == "tiles":
        parts = cutting.by_side(range(first, first + passes), model.image_size)
        record.facts["sides"] = [side for run, side in parts for _ in run]
    record.facts["preprocessing"] = model.preprocessing.describe()
    record.facts["preprocessing_from"] = model.preprocessing.source
    if block is None:
        record.facts["gflop"] = model.gflop()
    record.facts["rows"] = shard_digests(rows)[shard]
    record.write(view_chunk_record(views, shard, block), written)


def embed_parts(
    images: pd.DataFrame,
    model: "teachers.Teacher",
    settings: Cut,
    parts: Sequence[tuple[range | None, int]],
    batch_size: int,
    workers: int,
) -> tuple[npt.NDArray[np.float16], Boxes]:
    """Embed views of one or more sides, one side after another: (P, n, D) float16 and their boxes (P, n, 5).

    Args:
        images: rows of the manifest.
        model: the teacher.
        settings: of the crops.
        parts: passes, or None for the whole image, and the side of the views in pixels.
        batch_size: views of the teacher's own side in a batch; as many more pixels fit of smaller ones.
        workers: processes that decode.

    """
    result = []
    for passes, side in parts:
        dataset = Views(images, Square(side, model.preprocessing.interpolation), passes, settings)
        at_a_time = max(1, int(batch_size * (model.image_size / side) ** 2))
        count = 1 if passes is None else len(passes)
        result.append(embed_views(dataset, model.at_side(side), model.device, model.width, count, at_a_time, workers))
    return np.concatenate([embeddings for embeddings, _ in result]), np.concatenate([boxes for _, boxes in result])


def embed_views(
    dataset: Views,
    embed: Callable[[torch.Tensor], torch.Tensor],
    device: str,
    width: int,
    passes: int,
    batch_size: int,
    workers: int,
) -> tuple[npt.NDArray[np.float16], Boxes]:
    """Embed all views: (P, n, D) float16 and their boxes (P, n, 5).

    Args:
        dataset: n images.
        embed: from (B, 3, S, S) uint8 views to (B, D) on `device`.
        device: cpu, cuda or mps.
        width: D.
        passes: P.
        batch_size: B.
        workers: processes that decode.

    Raises:
        UserError: an image is bad, or an embedding is not finite.

    """
    embeddings = np.empty((passes, len(dataset), width), dtype=np.float16)
    boxes = np.empty((passes, len(dataset), len(EDGES)), dtype=np.float32)
    full = _batches(_grouped(dataset, passes, workers), boxes, batch_size, pinned=device == "cuda")
    for start, vectors in run_ahead(embed, full, device):
        image, view = np.divmod(np.arange(start, start + len(vectors)), passes)
        with np.errstate(over="ignore"):
            stored = vectors.numpy().astype(np.float16)  # may be infinite where the float32 is not
        if not np.isfinite(stored).all():
            first = int(np.argmin(np.isfinite(stored).all(axis=1)))
            name = str(dataset.images.iloc[image[first]]["path"])
            require_finite(stored[first][None], [name], f"the teacher's embedding of view {view[first]}")
        embeddings[view, image] = stored
    return embeddings, boxes


def embed_windows(
    images: pd.DataFrame, model: "teachers.Teacher", settings: WindowGridConfig, batch_size: int, workers: int
) -> tuple[npt.NDArray[np.float16], Boxes]:
    """Embed all windows of each image in one pass of the tower: (M, n, D) float16 and their boxes (M, n, 5)."""
    windows = model.windows(settings.windows)
    square = Square(windows.image_size, model.preprocessing.interpolation)
    dataset = Views(images, square, None, settings)
    embeddings = np.empty((settings.num_passes, len(dataset), model.width), dtype=np.float16)
    whole = np.empty((1, len(dataset), len(EDGES)), dtype=np.float32)
    at_a_time = max(1, int(batch_size / settings.windows.scale**2))  # a larger image takes as much more memory
    full = _batches(_grouped(dataset, 1, workers), whole, at_a_time, pinned=model.device == "cuda")
    for start, vectors in run_ahead(windows.embed_on_device, full, model.device):
        rows = slice(start, start + len(vectors))
        embeddings[:, rows] = vectors.transpose(0, 1).numpy()
        names = images["path"].iloc[rows].astype(str).tolist()
        require_finite(embeddings[:, rows].transpose(1, 0, 2), names, "the teacher's embedding of its windows")
    boxes = np.stack([windows.boxes(int(width), int(height)) for width, height in whole[0, :, 2:4]], axis=1)
    return embeddings, boxes


def _grouped(dataset: Views, passes: int, workers: int) -> Iterator[tuple[torch.Tensor, Boxes]]:
    """Read the views of a few images at a time: (g P, 3, S, S), image by image, and their boxes (P, g, 5)."""
    keys = in_order(len(dataset), max(1, VIEWS_TOGETHER // passes))
    with tqdm(total=len(dataset), desc="encode", unit="image") as bar:
        for views, boxes in batches(dataset.__getitem__, len(dataset), keys, _joined, workers):
            yield views, boxes
            bar.update(boxes.shape[1])


def _joined(images: list[tuple[torch.Tensor, Boxes]]) -> tuple[torch.Tensor, Boxes]:
    views, boxes = zip(*images, strict=True)
    return torch.cat(views), np.stack(boxes, axis=1)


def _batches(
    groups: Iterable[tuple[torch.Tensor, Boxes]], boxes: Boxes, batch_size: int, *, pinned: bool
) -> Iterator[tuple[int, torch.Tensor]]:
    """Regroup the views of groups of images into full batches; fill in the boxes on the way.

    Pinned batches are those of two buffers in turn, as `run_ahead` allows: a GPU reads them without the host's help.
    """
    buffers: Iterator[torch.Tensor] = iter(())

    def joined(parts: list[torch.Tensor]) -> torch.Tensor:
        nonlocal buffers
        if not pinned:
            return torch.cat(parts)
        buffer = next(buffers, None)
        if buffer is None:
            shape = (batch_size, *parts[0].shape[1:])
            buffers = cycle([torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)])
            buffer = next(buffers)
        return torch.cat(parts, out=buffer[: sum(map(len, parts))])

    waiting: list[torch.Tensor] = []
    start = held = image = 0
    for views, its_boxes in groups:
        boxes[:, image : image + its_boxes.shape[1]] = its_boxes
        image += its_boxes.shape[1]
        rest = views
        while held + len(rest) >= batch_size:
            yield start, joined([*waiting, rest[: batch_size - held]])
            start += batch_size
            rest, waiting, held = rest[batch_size - held :], [], 0
        if len(rest):
            waiting.append(rest)
            held += len(rest)
    if waiting:
        yield start, joined(waiting)
