"""Opening a student wherever it comes from: a run's folder, an exported folder, its safetensors or its ONNX file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cutsew.artefacts import thresholds as table
from cutsew.artefacts.thresholds import Thresholds
from cutsew.description import MODEL, read_description
from cutsew.device import pick_device
from cutsew.errors import UserError
from cutsew.numerics.views import Square
from cutsew.student import Build, build_backbone, load

ONNX = "model.onnx"


@dataclass(frozen=True)
class Classifier:
    """A student, ready for photos.

    Attributes:
        logits: from (B, 3, S, S) uint8 to (B, C) float32, on the CPU.
        classes: C names.
        square: how it takes photos.
        thresholds: from which probability each class counts as named.

    """

    logits: Callable[[Tensor], Tensor]
    classes: list[str]
    square: Square
    thresholds: Thresholds


def open_classifier(path: Path, device: str, build: Build = build_backbone) -> Classifier:
    """Open a student.

    Args:
        path: a run's folder or adapter.safetensors in it; a folder that `cutsew export` wrote, or student.safetensors
            or model.onnx in it.
        device: auto, cpu or cuda.
        build: makes the backbone of a run's student.

    Raises:
        UserError: there is no student, or it is damaged.

    """
    if path.is_dir() and not path.joinpath(MODEL).is_file() and path.joinpath(ONNX).is_file():
        path = path / ONNX
    if path.suffix == ".onnx":
        return _onnx(path, device)
    if not path.exists():
        raise UserError(f"{path}: no such model; name a run's folder, an exported folder or its model.onnx")
    where = pick_device(device)
    student = load(path, where, build)
    return Classifier(
        lambda images: student(images.to(where)).cpu(),
        student.classes,
        student.square,
        thresholds_of(path, student.classes),
    )


def thresholds_of(path: Path, classes: list[str]) -> Thresholds:
    """Return the thresholds of a student on disk: those of an export, else those of the run, else 0.5."""
    folder = path if path.is_dir() else path.parent
    kept = read_description(folder / MODEL).get("thresholds")
    if kept is not None:
        return Thresholds(kept["rule"], {rule: values for rule, values in kept.items() if rule != "rule"})
    if folder.joinpath(table.TABLE).is_file():
        return table.read(folder / table.TABLE, classes)
    return table.plain(len(classes))


def _onnx(path: Path, device: str) -> Classifier:
    from cutsew.deploy.onnx_student import OnnxStudent  # noqa: PLC0415 - needs the extra `export`

    student = OnnxStudent(path, "cpu" if device == "auto" else device)
    return Classifier(student, student.classes, student.square, student.thresholds)
