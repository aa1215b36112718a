"""Stage ensemble: the student's answer and the fused teacher's, combined for the held-out photos."""

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
from cutsew.method.ensemble import Reference, reference
from cutsew.method.ensemble import ensemble as combined
from cutsew.models.student import MODEL, Build, Student, build_backbone, load, scored
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import BatchOption, DeviceOption, SettingsOption, WorkersOption
from cutsew.storage import result_tables as table
from cutsew.storage.manifest import read_manifest
from cutsew.storage.predictions import IMAGES_AT_ONCE, Outcome
from cutsew.storage.zarr_layout import folder_of, label_spec
from cutsew.storage.zarr_reader import array_of, open_group
from cutsew.storage.zarr_writer import new_group

log = logging.getLogger(__name__)

SAMPLE = 4096
"""Number of training photos for the score statistics of student and teacher."""


def ensemble(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    adapter: Annotated[Path, typer.Argument(help="adapter.safetensors, with model.yaml next to it")],
    out: Annotated[Path, typer.Argument(help="ensemble.zarr, written; ensemble.csv next to it")],
    settings: SettingsOption,
    scores: Annotated[Path, typer.Option(help="The student's logits of the held-out photos.")],
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
    build: Build = build_backbone,
) -> None:
    """Combine with a backbone that `build` makes; otherwise as `ensemble`."""
    given = [images, adapter, adapter.with_name(MODEL), scores, fused, logits]
    record = Record("ensemble", STAGES["ensemble"].version, settings, given)
    photos = read_manifest(images)
    held_out = [str(name) for name in photos.loc[photos["split"] == "test", "id"]]
    student, teacher = Outcome("student", scores), Outcome("fused", fused)
    if student.classes != teacher.classes:
        raise UserError(f"{scores}: its classes are not those of {fused}; run the workflow again")
    if not teacher.knows(held_out):
        raise UserError("predict.ensemble: the teacher lacks scores of some held-out photos; add them, or set none")
    where = pick_device(device)
    model = load(adapter, where, build)
    sample = table.sample(photos[photos["split"] == "train"], SAMPLE)
    usual = {
        "student": reference(_looked_at(model, sample, batch_size, workers)),
        "teacher": reference(teacher.read([str(name) for name in sample["id"]])),
    }
    group = folder_of(out)
    beside = group.with_name(table.ENSEMBLE)
    table.write_score_statistics(beside, student.classes, usual)
    _combine(out, held_out, student, teacher, usual)
    views = _views(logits, settings)
    record.facts = {**device_facts(where), "reference_photos": len(sample), "photos": len(held_out)}
    record.facts |= {"views_of_teacher_per_photo": views, "views_of_student_per_photo": 1}
    record.write(group.with_suffix(".json"), {path.name: input_digest(path) for path in (group, beside)})
    of_teacher = "patches and regions" if views is None else f"{views} views"
    log.info("ensemble: %s of the teacher and one view of the student per image", of_teacher)


def _combine(out: Path, ids: list[str], student: Outcome, teacher: Outcome, usual: Mapping[str, Reference]) -> None:
    """Write ensemble.zarr, slice by slice."""
    spec = label_spec(len(ids), len(student.classes), min(max(len(ids), 1), IMAGES_AT_ONCE))
    names = np.asarray(ids, dtype=object if ids else str)
    with new_group(out, {"z": spec}, {"image": names, "class": student.classes}) as group:
        start = 0
        for of_student, of_teacher in zip(student.slices(ids), teacher.slices(ids), strict=True):
            made = combined(of_student, of_teacher, usual["student"], usual["teacher"])
            group["z"][start : start + len(made)] = made
            start += len(made)


def _looked_at(student: Student, photos: pd.DataFrame, batch_size: int, workers: int) -> npt.NDArray[np.float32]:
    """Score photos with the student."""
    paths = photos["path"].tolist()
    with tqdm(total=len(photos), desc="ensemble", unit="photo") as bar:
        return scored(student, plain_batches(paths, student.square, batch_size, workers), paths, bar)


def _views(logits: Path, settings: dict[str, Any]) -> int | None:
    """Count the views of a photo that were fused: its crops and itself; None if TagCLIP scored patches."""
    if settings.get("score", {}).get("rule") == "tagclip":
        return None
    passes = array_of(open_group(logits), "crops").shape[0]
    fused = settings.get("fuse", {}).get("passes")
    return int(passes if fused is None else fused) + 1
