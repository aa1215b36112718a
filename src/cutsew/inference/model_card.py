"""The model card of an exported student, MODEL_CARD.md: what it is, how it was made, how good it is, its limits.

It opens with the metadata that the Hugging Face hub reads. All of it comes from the run's records, so two exports of
one student have the same card.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader

from cutsew.audit.run import Run
from cutsew.errors import UserError, printable
from cutsew.method.thresholds import named
from cutsew.models.student import Student
from cutsew.storage.result_tables import LABELS, Thresholds

MEASURES = ("mAP", "CF1", "OF1")
MEASURED_STAGES = ("zero_shot", "fused", "student")
FEW_IMAGES = 10
"""Labels of a class among the training images below which the card warns of it."""


@dataclass(frozen=True)
class Origin:
    """What a run's records say of its student.

    Attributes:
        dataset: name of the dataset, and of the run.
        date: when training ended, as year-month-day.
        splits: split -> number of images.
        teacher: the teacher's kind and its settings.
        prompts: how class names became texts; empty where scores were made elsewhere.
        method: section -> settings in use, of the stages that made the labels and the student.
        metrics: measured stages, as rows of MEASURES in percent; empty where there was no truth.
        with_truth: held-out images with true labels.
        corrected: labels that a human set.
        rare: classes of fewer than FEW_IMAGES training images by the labels.
        digests: what is digested -> digest.

    """

    dataset: str
    date: str
    splits: dict[str, int]
    teacher: dict[str, Any]
    prompts: dict[str, Any]
    method: dict[str, Any]
    metrics: list[dict[str, Any]]
    with_truth: int
    corrected: int
    rare: list[str]
    digests: dict[str, str]


def card(folder: Path, student: Student, thresholds: Thresholds, files: Sequence[str]) -> str:
    """Write the card.

    Args:
        folder: the run's, or another that holds a student; then the card says less.
        student: the classifier.
        thresholds: that it is exported with.
        files: names of the exported files of weights.

    """
    origin = _origin(folder)
    template = Environment(loader=PackageLoader("cutsew"), autoescape=False, keep_trailing_newline=True)  # noqa: S701
    chosen = thresholds.choose()
    text = template.get_template("model_card.md.j2").render(
        metadata=yaml.safe_dump(_metadata(origin, files), sort_keys=False, allow_unicode=True).strip(),
        origin=origin,
        classes=[_cell(name) for name in student.classes],
        thresholds=list(zip(map(_cell, student.classes), (f"{value:.3g}" for value in chosen), strict=True)),
        rule=thresholds.in_words(),
        uses_labels=thresholds.rule == LABELS,
        backbone=student.backbone.describe(),
        size=student.square.size,
        flow=_flow,
        few=FEW_IMAGES,
        measures=MEASURES,
    )
    return text.strip("\n") + "\n"


def _origin(folder: Path) -> Origin | None:
    """Collect what the records say; None where the folder is not a complete run."""
    try:
        run = Run(folder)
    except UserError:
        return None
    trained = run.record("adapter.safetensors")
    if trained is None:
        return None
    text, fused, last = run.record("text.zarr"), run.record("fused.zarr"), run.stages("train")[-1]
    metrics, with_truth = _measured(run)
    encoded = text.content if text is not None else {}
    settings = trained.content["settings"]
    method = {
        **({"fuse": fused.content["settings"].get("fuse")} if fused is not None else {}),
        **{name: settings[name] for name in ("sew", "train") if name in settings},
    }
    counts = _named(run, last)
    weights = encoded.get("facts", {}).get("weights")
    return Origin(
        dataset=f"{run.folder.parent.name}/{run.folder.name}",
        date=str(trained.content["end"])[:10],
        splits={split: len(run.ids(split)) for split in ("train", "test") if run.ids(split)},
        teacher=encoded.get("settings", {}).get("teacher", {"kind": "scores"}),
        prompts=encoded.get("settings", {}).get("prompts", {}),
        method=method,
        metrics=metrics,
        with_truth=with_truth,
        corrected=len(run.corrections.table) if run.corrections is not None else 0,
        rare=[_cell(name) for name, count in zip(run.classes, counts, strict=True) if count < FEW_IMAGES],
        digests={
            **({"teacher's weights": weights} if weights else {}),
            **{path.name: digest for path, digest in [*trained.inputs.items(), *trained.outputs.items()]},
        },
    )


def _measured(run: Run) -> tuple[list[dict[str, Any]], int]:
    path = run.path("metrics.csv")
    if path is None:
        return [], 0
    table = pd.read_csv(path)
    table = table[(table["split"] == "test") & table["stage"].isin(MEASURED_STAGES) & table["mAP"].notna()]
    rows = [{"stage": row["stage"], **{name: f"{row[name]:.1f}" for name in MEASURES}} for _, row in table.iterrows()]
    return rows, int(table["with_truth"].max()) if rows else 0


def _named(run: Run, stage: str) -> list[int]:
    """Count the training images that each class is a label of."""
    thresholds, counts = run.thresholds_of(stage, "train"), np.zeros(len(run.classes), dtype=np.int64)
    for block in run.outcomes[stage].slices(run.ids("train")):
        counts += named(block, thresholds).sum(axis=0)
    return [int(count) for count in counts]


def _metadata(origin: Origin | None, files: Sequence[str]) -> dict[str, Any]:
    formats = ["onnx" if name.endswith(".onnx") else "safetensors" for name in files]
    found: dict[str, Any] = {
        "library_name": "cutsew",
        "pipeline_tag": "image-classification",
        "license": "other",
        "license_name": "that-of-the-backbone",
        "tags": ["multi-label", "pseudo-labels", *formats],
    }
    if origin is not None and origin.metrics and origin.metrics[-1]["stage"] == "student":
        measured = [{"type": name, "value": float(origin.metrics[-1][name])} for name in MEASURES]
        dataset = {"type": origin.dataset.split("/")[0], "name": origin.dataset, "split": "test"}
        task = {"type": "image-classification", "name": "multi-label image classification"}
        results = [{"task": task, "dataset": dataset, "metrics": measured}]
        found["model-index"] = [{"name": origin.dataset, "results": results}]
    return found


def _flow(value: Any) -> str:  # noqa: ANN401
    """Write settings as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return _cell(text.strip().removesuffix("...").strip())


def _cell(text: str) -> str:
    """Write a text so that Markdown shows it as it is, in a table too."""
    return html.escape(printable(text), quote=False).replace("|", "\\|")
