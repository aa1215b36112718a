"""Stage predict: photos, scored by the student; the held-out ones of a run, or any others."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from tqdm import tqdm

from cutsew.data.loader import plain_batches
from cutsew.errors import UserError
from cutsew.models.student import MODEL, Build, build_backbone, load, scored
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import BatchOption, DeviceOption, WorkersOption
from cutsew.storage.manifest import read_manifest
from cutsew.storage.zarr_layout import folder_of, label_spec
from cutsew.storage.zarr_writer import new_group

if TYPE_CHECKING:
    from cutsew.inference.classifier import Classifier
    from cutsew.inference.test_time_ensembles import Tiled, Together


def predict(
    photos: Annotated[Path, typer.Argument(help="A photo or a folder; in the workflow, images.parquet.")],
    model: Annotated[
        Path, typer.Argument(help="A run's folder or its adapter.safetensors; an exported folder or its model.onnx.")
    ],
    out: Annotated[
        Path, typer.Argument(help="A .csv, .json or .jsonl file, - for standard output; in the workflow, scores.zarr.")
    ],
    device: DeviceOption = "auto",
    batch_size: BatchOption = 32,
    workers: WorkersOption = 0,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Name classes from this probability on. Default: the model's own."),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="Which of the model's thresholds: fixed, count, mixture or, if it has them, labels."),
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="csv, json or jsonl. Default: by the suffix; csv on standard output.")
    ] = None,
    *,
    long: Annotated[bool, typer.Option("--long", help="CSV of one row per photo and class.")] = False,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Also score with the run's teacher (predict.ensemble: teacher): M + 1 views per photo."
        ),
    ] = False,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="Look at four tiles of each photo too (predict.tiles): five views a photo.")
    ] = False,
) -> None:
    """Classify images with a trained student: files, folders or the held-out split."""
    if folder_of(out).suffix == ".zarr":
        if threshold is not None or rule or file_format or long or ensemble or tiles:
            raise UserError(f"{out}: is a Zarr of logits only; omit all other options")
        run(photos, model, out, device, batch_size, workers)
        return
    if ensemble and tiles:
        raise UserError("--tiles: cannot be combined with --ensemble; leave one of them out")
    from cutsew.inference.classifier import open_classifier
    from cutsew.inference.new_images import How
    from cutsew.inference.new_images import predict as look

    student = open_classifier(model, device)
    folder = model if model.is_dir() else model.parent
    together: Together | Tiled | None = None
    if ensemble:
        together = _together(folder, student, device, batch_size)
    elif tiles:
        together = _tiled(folder, student)
    look(photos, student, out, How(threshold, rule, file_format, long, batch_size, workers, together))


def _together(folder: Path, student: "Classifier", device: str, batch_size: int) -> "Together":
    from cutsew.inference.test_time_ensembles import Together

    return Together(folder, student.classes, device, batch_size)


def _tiled(folder: Path, student: "Classifier") -> "Tiled":
    from cutsew.inference.test_time_ensembles import Tiled

    return Tiled(folder, student)


def run(
    images: Path,
    adapter: Path,
    scores: Path,
    device: str,
    batch_size: int,
    workers: int,
    build: Build = build_backbone,
) -> None:
    """Predict with a backbone that `build` makes; otherwise as `predict`.

    Without test photos the array has the shape (0, C).
    """
    record = Record("predict", STAGES["predict"].version, {}, [images, adapter, adapter.with_name(MODEL)])
    photos = read_manifest(images, split="test")
    where = pick_device(device)
    student = load(adapter, where, build)
    size = max(1, int(photos.groupby("shard").size().max())) if len(photos) else 1
    spec = label_spec(len(photos), len(student.classes), size)
    ids = np.asarray(photos["id"].tolist(), dtype=object if len(photos) else str)
    with (
        new_group(scores, {"z": spec}, {"image": ids, "class": student.classes}) as group,
        tqdm(total=len(photos), desc="predict", unit="photo") as bar,
    ):
        for start in range(0, len(photos), size):  # one chunk at a time
            paths = photos["path"].iloc[start : start + size].tolist()
            batches = plain_batches(paths, student.square, batch_size, workers)
            group["z"][start : start + len(paths)] = scored(student, batches, paths, bar)
    record.facts = {**device_facts(where), "weights": student.backbone.weights_digest, "photos": len(photos)}
    record.write_beside(scores)
