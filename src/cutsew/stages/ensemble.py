"""Stage ensemble: the student's answer and the fused teacher's, combined for the held-out images."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.data.loader import plain_batches
from cutsew.errors import UserError
from cutsew.method.ensemble import ScoreStats, score_stats
from cutsew.method.ensemble import ensemble as combined
from cutsew.models.student import MODEL, BackboneFactory, Student, build_backbone, load, predict_batches
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import BatchOption, DeviceOption, SettingsOption, WorkersOption
from cutsew.storage import result_tables as table
from cutsew.storage.manifest import ids_of, read_manifest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.zarr_layout import folder_of, label_spec
from cutsew.storage.zarr_reader import array_of, open_group
from cutsew.storage.zarr_writer import new_group

log = logging.getLogger(__name__)

SAMPLE = 4096
"""Number of training images for the score statistics of student and teacher."""


def ensemble(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    adapter: Annotated[Path, typer.Argument(help="adapter.safetensors, with model.yaml next to it")],
    out: Annotated[Path, typer.Argument(help="ensemble.zarr, written; ensemble.csv next to it")],
    settings: SettingsOption,
    scores: Annotated[Path, typer.Option(help="The student's logits of the held-out images.")],
    fused: Annotated[Path, typer.Option(help="The fused teacher's logits.")],
    logits: Annotated[Path, typer.Option(help="The teacher's logits of every view; only their number is read.")],
    device: DeviceOption = "auto",
    batch_size: BatchOption = 32,
    workers: WorkersOption = 0,
) -> None:
    """Ensemble the student's logits with the fused teacher's."""
    run(images, adapter, out, settings, scores, fused, logits, device, batch_size, workers)


def run(
    images: Path,
    adapter: Path,
    out: Path,
    settings: dict[str, Any],
    scores: Path,
    fused: Path,
    logits: Path,
    device: str,
    batch_size: int,
    workers: int,
    build: BackboneFactory = build_backbone,
) -> None:
    """Combine with a backbone that `build` makes; otherwise as `ensemble`."""
    inputs = [images, adapter, adapter.with_name(MODEL), scores, fused, logits]
    record = Record("ensemble", STAGES["ensemble"].version, settings, inputs)
    image_rows = read_manifest(images, columns=("id", "path", "split"))
    held_out = ids_of(image_rows, "test")
    student, teacher = StagePredictions("student", scores), StagePredictions("fused", fused)
    if student.classes != teacher.classes:
        raise UserError(f"{scores}: its classes are not those of {fused}; run the workflow again")
    if not teacher.covers(held_out):
        raise UserError("predict.ensemble: the teacher lacks scores of some held-out images; add them, or set none")
    torch_device = pick_device(device)
    model = load(adapter, torch_device, build)
    sample = table.sample(image_rows[image_rows["split"] == "train"], SAMPLE)
    stats = {
        "student": score_stats(_looked_at(model, sample, batch_size, workers)),
        "teacher": score_stats(teacher.read([str(name) for name in sample["id"]])),
    }
    group = folder_of(out)
    stats_path = group.with_name(table.ENSEMBLE)
    table.write_score_statistics(stats_path, student.classes, stats)
    _combine(out, held_out, student, teacher, stats)
    views = _views(logits, settings)
    record.facts = {**device_facts(torch_device), "reference_images": len(sample), "images": len(held_out)}
    record.facts |= {"views_of_teacher_per_image": views, "views_of_student_per_image": 1}
    record.write(group.with_suffix(".json"), {path.name: input_digest(path) for path in (group, stats_path)})
    of_teacher = "patches and regions" if views is None else f"{views} views"
    log.info("ensemble: %s of the teacher and one view of the student per image", of_teacher)


def _combine(
    out: Path, ids: pd.Index, student: StagePredictions, teacher: StagePredictions, stats: Mapping[str, ScoreStats]
) -> None:
    """Write ensemble.zarr, slice by slice."""
    spec = label_spec(len(ids), len(student.classes))
    with new_group(out, {"z": spec}, {"image": ids, "class": student.classes}) as group:
        start = 0
        for of_student, of_teacher in zip(student.slices(ids), teacher.slices(ids), strict=True):
            logits = combined(of_student, of_teacher, stats["student"], stats["teacher"])
            group["z"][start : start + len(logits)] = logits
            start += len(logits)


def _looked_at(student: Student, images: pd.DataFrame, batch_size: int, workers: int) -> npt.NDArray[np.float32]:
    """Score images with the student."""
    paths = images["path"].tolist()
    with tqdm(total=len(images), desc="ensemble", unit="image") as bar:
        return predict_batches(student, plain_batches(paths, student.square, batch_size, workers), paths, bar)


def _views(logits: Path, settings: dict[str, Any]) -> int | None:
    """Count the views of an image that were fused: its crops and itself; None if TagCLIP scored patches."""
    if settings.get("score", {}).get("rule") == "tagclip":
        return None
    passes = array_of(open_group(logits), "pass").shape[0]
    fused = settings.get("fuse", {}).get("passes")
    return int(passes if fused is None else fused) + 1
