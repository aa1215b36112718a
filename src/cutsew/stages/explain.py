"""Stage explain: where teacher and student see a class, and what they make of a sample of images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from cutsew.config.evaluation import ExplainConfig
from cutsew.config.networks import parse_teacher
from cutsew.data.images import read_image
from cutsew.data.loader import plain_batches
from cutsew.errors import UserError
from cutsew.method.crops import whole_box
from cutsew.method.resample import crop_resize_all
from cutsew.method.select import argmax_per_class, select_explanations
from cutsew.models import teachers
from cutsew.models.student import MODEL, BackboneFactory, Student, build_backbone, load
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.runtime.batching import require_finite
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import BatchOption, DeviceOption, SettingsOption, WorkersOption
from cutsew.storage.manifest import batched_slices, read_manifest
from cutsew.storage.text_embeddings import read_texts
from cutsew.storage.zarr_layout import GLOBAL, map_specs
from cutsew.storage.zarr_reader import array_of, attribute, labels_of, open_group, read, read_rows
from cutsew.storage.zarr_writer import AuxiliaryCoordinate, Coordinates, write_group

SLAB = 8192
"""Images whose logits are read at a time."""

Floats = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Pairs:
    """Images (rows of the manifest) and one class of each, by its number; (n,) int64."""

    images: pd.DataFrame
    classes: Tensor


def explain(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    adapter: Annotated[Path, typer.Argument(help="adapter.safetensors, with model.yaml next to it")],
    maps: Annotated[Path, typer.Argument(help="maps.zarr, written")],
    settings: SettingsOption,
    views: Annotated[Path, typer.Option(help="views.zarr; only the whole images are read.")],
    text: Annotated[Path, typer.Option(help="text.zarr")],
    scores: Annotated[Path, typer.Option(help="The student's logits of the held-out images.")],
    refined: Annotated[Path, typer.Option(help="The refined labels, for where no image is held out.")],
    device: DeviceOption = "auto",
    batch_size: BatchOption = 32,
    workers: WorkersOption = 0,
) -> None:
    """Compute class activation maps, and the features of a sample of images."""
    run(images, adapter, maps, settings, views, text, scores, refined, device, batch_size, workers)


def run(
    images: Path,
    adapter: Path,
    maps: Path,
    settings: dict[str, Any],
    views: Path,
    text: Path,
    scores: Path,
    refined: Path,
    device: str,
    batch_size: int,
    workers: int,
    build: BackboneFactory = build_backbone,
) -> None:
    """Explain with a backbone that `build` makes; otherwise as `explain`."""
    options = ExplainConfig.model_validate(settings["explain"])
    image_rows = read_manifest(images)
    held_out = image_rows[image_rows["split"] == "test"]
    labels = scores if len(held_out) else refined
    inputs = [images, adapter, adapter.with_name(MODEL), views, text, labels]
    record = Record("explain", STAGES["explain"].version, settings, inputs)
    torch_device = pick_device(device)
    student = load(adapter, torch_device, build)
    teacher = teachers.build(parse_teacher(settings["teacher"]), torch_device)
    texts = _read_texts(text, teacher, student)
    pairs = _choose(labels, image_rows, options.num_maps)
    sample = (held_out if len(held_out) else image_rows).sort_values(["digest", "id"])[: options.num_embeddings]
    seen = open_group(views)
    if attribute(seen, "preprocessing") != teacher.preprocessing.describe():
        raise UserError(
            f"{views}: encoded with other preprocessing than the teacher's; delete it and run the workflow again"
        )
    before = read_rows(array_of(seen, GLOBAL), sample["row"].to_numpy())
    with tqdm(total=2 * len(pairs.images) + len(sample), desc="explain", unit="image") as bar:
        of_teacher = _teacher_maps(teacher, texts, pairs, batch_size, bar)
        of_student = _student_maps(student, pairs, batch_size, workers, bar)
        after = _features(student, sample, batch_size, workers, bar)

    arrays = {"teacher": of_teacher, "student": of_student, "before": before, "after": after}
    _write(maps, arrays, pairs, sample, student.classes)
    record.facts = {**device_facts(torch_device), "pairs": len(pairs.images), "sample": len(sample)}
    record.facts |= {"weights": {"teacher": teacher.weights_digest, "student": student.backbone.weights_digest}}
    record.write_beside(maps)


def _read_texts(text: Path, teacher: "teachers.Teacher", student: Student) -> Tensor:
    """Read the (C, D) embeddings of the class names, and behind them those of the background words.

    Raises:
        UserError: they are another teacher's, or of other classes than the student's.

    """
    texts = read_texts(text)
    if texts.weights != teacher.weights_digest:
        raise UserError(f"{text}: made by a teacher with other weights; run the workflow again")
    if labels_of(open_group(text), "class") != student.classes:
        raise UserError(f"{text}: its classes are not those of the student; run the workflow again")
    return torch.from_numpy(np.concatenate([texts.classes, texts.background]))


def _choose(labels: Path, images: pd.DataFrame, most: int) -> Pairs:
    """Choose the (image, class) pairs by a label artifact's logits."""
    group = open_group(labels)
    z, ids = array_of(group, "z"), labels_of(group, "image")
    rows, logits = argmax_per_class((read(z, part) for part in batched_slices(len(ids), SLAB)), z.shape[1])
    chosen = select_explanations(rows, logits, most)
    result = images.set_index("id", drop=False).reindex([ids[row] for row, _ in chosen])
    if result["path"].isna().any():
        raise UserError(f"{labels}: has images that the manifest lacks; run the workflow again")
    return Pairs(result.reset_index(drop=True), torch.tensor([index for _, index in chosen]))


def _write(maps: Path, arrays: Mapping[str, Floats], pairs: Pairs, sample: pd.DataFrame, classes: list[str]) -> None:
    """Write maps.zarr: maps of the pairs, and the sample's features before and after the adapter.

    Raises:
        UserError: a model's answer is not finite.

    """
    for model in ("teacher", "student"):
        require_finite(arrays[model], pairs.images["path"].tolist(), f"the {model}'s map of the whole image")
    require_finite(arrays["after"], sample["path"].tolist(), "the student's description of the whole image")
    shapes = {name: values.shape for name, values in arrays.items()}
    layout = map_specs(shapes["teacher"], shapes["student"], shapes["before"], shapes["after"][1])
    coordinates: Coordinates = {
        "image": AuxiliaryCoordinate("pair", pairs.images["id"].tolist()),
        "class": AuxiliaryCoordinate("pair", [classes[index] for index in pairs.classes.tolist()]),
        "sample": sample["id"].tolist(),
    }
    write_group(maps, {name: (layout[name], values) for name, values in arrays.items()}, coordinates)


def _teacher_maps(teacher: "teachers.Teacher", texts: Tensor, pairs: Pairs, batch_size: int, bar: tqdm) -> Floats:  # type: ignore[type-arg]
    result = []
    for part in batched_slices(len(pairs.images), batch_size):
        images = torch.cat(list(_whole(pairs.images[part], teacher)))
        result.append(teacher.maps(images, texts, pairs.classes[part]))
        bar.update(len(images))
    return torch.cat(result).half().numpy()


def _whole(images: pd.DataFrame, teacher: "teachers.Teacher") -> Iterator[Tensor]:
    """Yield the whole images as the teacher scored them, (1, 3, S, S) uint8 each."""
    for path in images["path"]:
        image = read_image(path)
        yield crop_resize_all(
            image, whole_box(*image.size)[None], teacher.image_size, teacher.preprocessing.interpolation
        )


def _student_maps(student: Student, pairs: Pairs, batch_size: int, workers: int, bar: tqdm) -> Floats:  # type: ignore[type-arg]
    result, start = [], 0
    for images in plain_batches(pairs.images["path"].tolist(), student.square, batch_size, workers):
        result.append(student.maps(images, pairs.classes[start : start + len(images)]))
        start += len(images)
        bar.update(len(images))
    return torch.cat(result).half().numpy()


def _features(student: Student, sample: pd.DataFrame, batch_size: int, workers: int, bar: tqdm) -> Floats:  # type: ignore[type-arg]
    features = []
    for images in plain_batches(sample["path"].tolist(), student.square, batch_size, workers):
        features.append(student.embed(images))
        bar.update(len(images))
    return torch.cat(features).half().numpy()
