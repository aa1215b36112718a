"""Stage tagclip: one shard's images scored patch by patch, and again where a class seems to be (TagCLIP)."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import typer
import zarr
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cutsew.config.method import TagClipConfig as Settings
from cutsew.config.networks import OpenClipTeacherConfig
from cutsew.data.images import read_image
from cutsew.errors import UserError
from cutsew.method.crops import whole
from cutsew.method.prompts import average, fill
from cutsew.method.tagclip import grid_of
from cutsew.models.activation import SOFTMAX_OVER_PATCHES
from cutsew.models.clip_teacher import OpenClipTeacher
from cutsew.models.tagclip_teacher import PatchTower, TagClip
from cutsew.pipeline.chunk_cache_key import chunk_cache_key
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.runtime.batching import map_images, require_finite
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import DeviceOption, SettingsOption, WorkersOption
from cutsew.storage.chunk_cache import ChunkCache
from cutsew.storage.manifest import read_manifest, shard_digests
from cutsew.storage.text_embeddings import read_texts
from cutsew.storage.zarr_layout import (
    tagclip_chunk_file,
    tagclip_chunk_record,
    tagclip_specs,
)
from cutsew.storage.zarr_reader import open_group
from cutsew.storage.zarr_writer import write_chunk

log = logging.getLogger(__name__)


class Images(Dataset[Tensor]):
    """Images of a shard, each at its own size in whole patches."""

    def __init__(self, images: pd.DataFrame, patch: int, most: int, interpolation: str) -> None:
        self.paths, self.digests = images["path"].tolist(), images["digest"].astype(str).tolist()
        self.patch, self.most, self.interpolation = patch, most, interpolation

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return (3, height, width) uint8."""
        image = read_image(self.paths[index], digest=self.digests[index])  # scores are found by it later
        rows, columns = grid_of(*image.size, self.patch, self.most)
        return torch.from_numpy(whole(image, columns * self.patch, rows * self.patch, self.interpolation))


def tagclip(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    text: Annotated[Path, typer.Argument(help="text.zarr")],
    group: Annotated[Path, typer.Argument(help="tagclip.zarr, the group whose chunk files are written")],
    settings: SettingsOption,
    shard: Annotated[int, typer.Option(min=0, help="Which shard of the images.")],
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images held in memory at a time.")] = 32,
    workers: WorkersOption = 0,
) -> None:
    """Score the patches of one shard's images and re-score each class's region (TagCLIP)."""
    record = Record("tagclip", STAGES["tagclip"].version, settings, [images, text])
    chosen = Settings.model_validate(settings["score"]["tagclip"])
    rows, place = read_manifest(images, shard=shard), pick_device(device)
    requested = OpenClipTeacherConfig.model_validate(settings["teacher"])
    teacher, words = OpenClipTeacher(requested, place), read_texts(text)
    if words.weights != teacher.weights_digest:
        raise UserError(f"{text}: made by a teacher with other weights; run the workflow again")
    if words.bias is not None:
        raise UserError(SOFTMAX_OVER_PATCHES)
    background = _background(teacher, open_group(text), chosen.background)
    texts, classes = torch.cat([torch.from_numpy(words.wordings), background]), len(words.classes)
    sizes = None if words.sizes is None else (*words.sizes, *[1] * len(background))
    tower = PatchTower(teacher, requested.open_clip.model, requested.precision)
    scorer = TagClip(tower, texts, classes, teacher.logit_scale, chosen, place, sizes)
    digests = rows["digest"].astype(str).tolist()
    layout = tagclip_specs(len(rows), classes, int(settings["dataset"]["shard_size"]))
    key = chunk_cache_key("tagclip", settings, teacher, place, text=input_digest(text))
    cache = ChunkCache(group, key, images)

    def compute(new: list[int]) -> dict[str, npt.NDArray[np.float32]]:
        images = Images(rows.iloc[new], tower.patch, chosen.patches, teacher.preprocessing.interpolation)
        return dict(zip(layout, _score(scorer, images, batch_size, workers, place), strict=True))

    values, scored = cache.complete(digests, layout, compute)
    if scored < len(rows):
        log.info("%d of %d images are new and were scored", scored, len(rows))
    files = {name: tagclip_chunk_file(group, name, shard) for name in layout}
    written = {name: write_chunk(path, values[name], layout[name]) for name, path in files.items()}
    cache.add(shard, digests, layout, {name: (files[name], digest) for name, digest in written.items()})
    record.facts = {"weights": teacher.weights_digest, "text": input_digest(text), **device_facts(place)}
    record.facts |= {"preprocessing": teacher.preprocessing.describe()}
    record.facts |= {"preprocessing_from": teacher.preprocessing.source}
    record.facts |= {"patch": tower.patch, "side": tower.side, "background": len(background)}
    record.facts |= {"images": len(rows), "rows": shard_digests(rows)[shard]}
    record.work = {"scored": scored}
    outputs = {str(files[name].relative_to(group)): digest for name, digest in written.items()}
    record.write(tagclip_chunk_record(group, shard), outputs)


def _background(teacher: OpenClipTeacher, words: zarr.Group, background: list[str]) -> Tensor:
    """Embed what else fills images, with the templates of the classes: (B, D); without what a class is worded as."""
    attributes: dict[str, Any] = dict(words.attrs)
    class_texts = {text.casefold() for texts in attributes["texts"] for text in texts}
    filled = fill(attributes["templates"], [[word] for word in background])
    texts = [texts for texts in filled if texts[0].casefold() not in class_texts]
    if not texts:
        return torch.zeros(0, teacher.width)
    embedded = teacher.embed_texts([one for of_word in texts for one in of_word])
    return average(embedded.reshape(len(texts), -1, teacher.width))


def _score(scorer: TagClip, dataset: Images, batch_size: int, workers: int, device: str) -> npt.NDArray[np.float32]:
    """Score all images: (2, n, C)."""
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
    scores: list[Tensor] = []
    for images in _batches(tqdm(loader, desc="tagclip", unit="image"), batch_size):
        for result in map_images(scorer, images, device):
            name = dataset.paths[len(scores)]
            require_finite(result[:1].numpy(), [name], "the teacher's score of its patches")
            scores.append(result)
    stacked: npt.NDArray[np.float32] = torch.stack(scores, dim=1).numpy()
    return stacked


def _batches(images: "tqdm[Tensor]", size: int) -> Iterator[list[Tensor]]:
    waiting = iter(images)
    while batch := list(islice(waiting, size)):
        yield batch
