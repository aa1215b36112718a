"""Tool export: a run's student as files that need no run, no hub and no workflow."""

import logging
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jinja2 import Environment, PackageLoader
from torch import Tensor

from cutsew.config.networks import BuiltStudent
from cutsew.data.csv_file import ImageNames
from cutsew.data.truth import adopt, to_table
from cutsew.data.truth_csv import from_csv
from cutsew.errors import UserError
from cutsew.inference import model_files
from cutsew.inference.classifier import ONNX, thresholds_of
from cutsew.inference.model_card import card
from cutsew.method.thresholds import FIXED, best_f1
from cutsew.models.backbones import Backbone
from cutsew.models.student import MERGED_WEIGHTS, MODEL, BackboneFactory, Student, build_backbone, load, read_model_spec
from cutsew.provenance.record import Record
from cutsew.storage import result_tables as table
from cutsew.storage.atomic import atomic_path, write_text
from cutsew.storage.file_digests import file_digest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.result_tables import LABELS, Thresholds
from cutsew.storage.tables import label_column
from cutsew.storage.zarr_reader import labels_of, open_group

log = logging.getLogger(__name__)

VERSION = 1
RECORD, README, CARD = "export.json", "README.md", "MODEL_CARD.md"


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, which holds adapter.safetensors and model.yaml.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; an earlier export there is replaced.")],
    rule: Annotated[
        str | None, typer.Option(help="Decision thresholds of the model: fixed, count, mixture or labels.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV of true labels, as dataset.truth: adds thresholds of best F1 on the held-out images."),
    ] = None,
    *,
    onnx: Annotated[bool, typer.Option(help="Write model.onnx too; needs the extra `export`.")] = True,
) -> None:
    """Write a run's student, backbone included: ONNX, safetensors, a README and a model card."""
    write(run, folder, rule, labels, onnx=onnx)


def write(
    run: Path,
    folder: Path,
    rule: str | None,
    labels: Path | None,
    *,
    onnx: bool,
    build: BackboneFactory = build_backbone,
) -> None:
    """Export with a backbone that `build` makes; otherwise as `export`.

    Raises:
        UserError: there is no student, a package is missing, or `folder` holds something else.

    """
    folder = folder.absolute()  # `.` has no name from which to derive a temporary one
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / RECORD).is_file())):
        raise UserError(f"{folder}: already exists and is not an export; choose another folder")
    if onnx:
        model_files.require()
    student = load(run, "cpu", partial(_in_float32, build))
    home = run if run.is_dir() else run.parent
    description = read_model_spec(home / MODEL)
    record = Record("export", VERSION, {"rule": rule, "onnx": onnx}, [home / MODEL, home / _weights(description)])
    thresholds = thresholds_of(home, student.classes)
    if home.joinpath(table.TABLE).is_file():
        record.inputs.append(home / table.TABLE)
    if labels is not None:
        record.inputs += [labels, home / "scores.zarr"]
        thresholds = _with_labels(thresholds, labels, home / "scores.zarr")
    thresholds = Thresholds(rule or (LABELS if labels else thresholds.rule), thresholds.by_rule)
    thresholds.choose()  # refuses a rule that is not there before anything is written
    record.facts = {"thresholds_use_labels": thresholds.rule == LABELS}
    with atomic_path(folder) as draft:
        draft.mkdir()
        model_files.save(draft, student, description, thresholds)
        if onnx:
            record.facts |= {"opset": model_files.OPSET, **model_files.versions()}
            record.facts["largest_difference_of_logits"] = model_files.export(draft / ONNX, student, thresholds)
        write_text(draft / README, _readme(student, thresholds, onnx=onnx))
        weights = [name for name in (ONNX, MERGED_WEIGHTS) if (draft / name).exists()]
        write_text(draft / CARD, card(home, student, thresholds, weights))
        record.write(draft / RECORD, {path.name: file_digest(path) for path in sorted(draft.iterdir())})
    _log_summary(folder)


def _log_summary(folder: Path) -> None:
    written = [path for path in (folder / ONNX, folder / MERGED_WEIGHTS) if path.exists()]
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in written)
    log.info("%s: %s; how to use them: %s; what to know of them: %s", folder, sizes, README, CARD)


def _in_float32(build: BackboneFactory, settings: BuiltStudent, device: str, *state: dict[str, Tensor]) -> Backbone:
    """Build a backbone that any machine runs: neither of half precision nor compiled, as no CPU does float16."""
    precision = settings.precision if settings.precision in ("float32", "tf32") else "tf32"
    return build(settings.model_copy(update={"precision": precision, "compiled": False}), device, *state)


def _weights(description: dict[str, Any]) -> str:
    return str(description.get("weights", "adapter.safetensors"))


def _with_labels(thresholds: Thresholds, path: Path, scores: Path) -> Thresholds:
    """Add thresholds that maximise F1 on held-out images whose labels a CSV holds."""
    outcome = StagePredictions("student", scores)
    ids = labels_of(open_group(scores), "image")
    truth = from_csv(path, ImageNames(ids), outcome.classes, "--labels")
    adopt(truth, outcome.classes)
    labeled = to_table(truth, ids, outcome.classes)
    values = labeled[[label_column(name) for name in outcome.classes]].to_numpy(np.int8)
    fitted = best_f1(values, outcome.read(labeled["id"].tolist()))
    if np.isnan(fitted).any():
        log.warning("some classes have no labeled held-out image; they keep the thresholds of %s", FIXED)
    log.info("thresholds fitted to the labels of %d held-out images", len(labeled))
    return Thresholds(
        thresholds.rule, {**thresholds.by_rule, LABELS: np.where(np.isnan(fitted), FIXED, fitted).tolist()}
    )


def _readme(student: Student, thresholds: Thresholds, *, onnx: bool) -> str:
    environment = Environment(loader=PackageLoader("cutsew"), autoescape=False, keep_trailing_newline=True)  # noqa: S701
    return environment.get_template("export.md.j2").render(
        classes=student.classes,
        size=student.square.size,
        interpolation=student.square.interpolation,
        rule=thresholds.in_words(),
        backbone=student.backbone.describe(),
        opset=model_files.OPSET,
        onnx=onnx,
    )
