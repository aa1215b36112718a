"""Stage predict: images, scored by the student; the held-out ones of a run, or any others."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm

from cutsew.data.loader import plain_batches
from cutsew.errors import UserError
from cutsew.models.student import MODEL, BackboneFactory, build_backbone, load, predict_batches
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.runtime.device import device_facts, pick_device
from cutsew.runtime.machine import usable_cores
from cutsew.stages.options import BatchOption, DeviceOption
from cutsew.storage.manifest import ids_of, read_manifest
from cutsew.storage.zarr_layout import folder_of, label_spec
from cutsew.storage.zarr_writer import new_group

if TYPE_CHECKING:
    from cutsew.inference.classifier import Classifier
    from cutsew.inference.test_time_ensembles import TeacherEnsemble, TileEnsemble


def predict(
    images: Annotated[
        str,
        typer.Argument(
            help="An image, a folder, a .tar or .parquet of images, a pattern of these, or a URL of any; in the "
            "workflow, images.parquet."
        ),
    ],
    model: Annotated[
        Path, typer.Argument(help="A run's folder or its adapter.safetensors; an exported folder or its model.onnx.")
    ],
    out: Annotated[
        Path, typer.Argument(help="A .csv, .json or .jsonl file, - for standard output; in the workflow, scores.zarr.")
    ],
    device: DeviceOption = "auto",
    batch_size: BatchOption = 32,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Workers that decode images. Default: 0 on a CPU; with a GPU one per core, up to 16."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability from which a class is a label. Default: the model's own."),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="Which of the model's thresholds: fixed, count, mixture or, if it has them, labels."),
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="csv, json or jsonl. Default: by the suffix; csv on standard output.")
    ] = None,
    *,
    long: Annotated[bool, typer.Option("--long", help="CSV of one row per image and class.")] = False,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Also score with the run's teacher (predict.ensemble: teacher): M + 1 views per image."
        ),
    ] = False,
    tiles: Annotated[
        bool,
        typer.Option(
            "--tiles", help="Also score four overlapping tiles of each image (predict.tiles): five views per image."
        ),
    ] = False,
) -> None:
    """Classify images with a trained student: files, folders or the held-out split."""
    if folder_of(out).suffix == ".zarr":
        if threshold is not None or rule or file_format or long or ensemble or tiles:
            raise UserError(f"{out}: is a Zarr of logits only; omit all other options")
        run(Path(images), model, out, device, batch_size, workers or 0)
        return
    if ensemble and tiles:
        raise UserError("--tiles: cannot be combined with --ensemble; leave one of them out")
    from cutsew.inference.classifier import open_classifier
    from cutsew.inference.new_images import PredictOptions
    from cutsew.inference.new_images import predict as look

    student = open_classifier(model, device)
    if workers is None:
        workers = 0 if student.device == "cpu" else min(16, usable_cores())
    folder = model if model.is_dir() else model.parent
    together = _together(folder, student, device, batch_size) if ensemble else None
    tiled = _tiled(folder, student) if tiles else None
    how = PredictOptions(threshold, rule, file_format, long, batch_size, workers, together, tiled)
    look(images, student, out, how)


def _together(folder: Path, student: "Classifier", device: str, batch_size: int) -> "TeacherEnsemble":
    from cutsew.inference.test_time_ensembles import TeacherEnsemble

    return TeacherEnsemble(folder, student.classes, device, batch_size)


def _tiled(folder: Path, student: "Classifier") -> "TileEnsemble":
    from cutsew.inference.test_time_ensembles import TileEnsemble

    return TileEnsemble(folder, student)


def run(
    images: Path,
    adapter: Path,
    scores: Path,
    device: str,
    batch_size: int,
    workers: int,
    build: BackboneFactory = build_backbone,
) -> None:
    """Predict with a backbone that `build` makes; otherwise as `predict`.

    Without test images the array has the shape (0, C).
    """
    record = Record("predict", STAGES["predict"].version, {}, [images, adapter, adapter.with_name(MODEL)])
    image_rows = read_manifest(images, split="test", columns=("id", "path", "split"))
    torch_device = pick_device(device)
    student = load(adapter, torch_device, build)
    spec = label_spec(len(image_rows), len(student.classes))
    size = spec.chunks[0]
    with (
        new_group(scores, {"z": spec}, {"image": ids_of(image_rows), "class": student.classes}) as group,
        tqdm(total=len(image_rows), desc="predict", unit="image") as bar,
    ):
        for start in range(0, len(image_rows), size):  # one chunk at a time
            paths = image_rows["path"].iloc[start : start + size].tolist()
            batches = plain_batches(paths, student.square, batch_size, workers)
            group["z"][start : start + len(paths)] = predict_batches(student, batches, paths, bar)
    record.facts = {**device_facts(torch_device), "weights": student.backbone.weights_digest, "images": len(image_rows)}
    record.write_beside(scores)
