"""Opening a student, as torch module or ONNX file.

- A student that onnxruntime runs, with the interface of cutsew.models.student.Student.
- Opening a student wherever it comes from: a run's folder, an exported folder, its safetensors or its ONNX file.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cutsew.errors import UserError
from cutsew.inference.model_files import INPUT, OUTPUTS
from cutsew.method.crops import Square
from cutsew.models.student import MODEL, BackboneFactory, build_backbone, load, read_model_spec
from cutsew.runtime.device import pick_device
from cutsew.runtime.lazy_imports import optional_package
from cutsew.storage import result_tables as table
from cutsew.storage.result_tables import Thresholds


class OnnxStudent:
    """The classifier of a model.onnx that `cutsew export` wrote.

    Args:
        path: the file.
        device: cpu or cuda; cuda needs onnxruntime's build for it.

    Attributes:
        classes: C names, in the order of the logits.
        image_size: S, side of the square input in pixels; images are squashed to it.
        square: that size, and the interpolation.
        thresholds: per-class decision thresholds.

    Raises:
        UserError: no such file, not one that `cutsew export` wrote, or a package or device is missing.

    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        runtime = optional_package("onnxruntime", "export", "ONNX")
        if not path.is_file():
            raise UserError(f"{path}: no such file; write it with cutsew export")
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        if device == "mps":
            raise UserError("--device: ONNX files run on cpu and cuda; set --device cpu, or name the run's folder")
        if provider not in runtime.get_available_providers():
            raise UserError("--device: this onnxruntime has no cuda; install onnxruntime-gpu, or set --device cpu")
        try:
            self._session = runtime.InferenceSession(path, providers=[provider])
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.classes = [str(name) for name in json.loads(metadata["classes"])]
            self.image_size = int(metadata["image_size"])
            self.square = Square(self.image_size, metadata["interpolation"])
            self.thresholds = Thresholds(metadata["threshold_rule"], json.loads(metadata["thresholds_by_rule"]))
        except Exception:  # onnxruntime raises a different exception for each kind of damage
            raise UserError(f"{path}: not a complete ONNX file of cutsew export; export the student again") from None

    def __call__(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 RGB pixels to (B, C) float32 logits; their sigmoid is each class's probability."""
        (logits,) = self._session.run([OUTPUTS[0]], {INPUT: images.cpu().numpy()})
        return torch.from_numpy(logits)


ONNX = "model.onnx"


@dataclass(frozen=True)
class Classifier:
    """A student, ready for images.

    Attributes:
        predict: from (B, 3, S, S) uint8 to (B, C) float32 logits, on `device`.
        classes: C names.
        square: how it takes images.
        thresholds: per-class decision thresholds.
        device: cpu, cuda or mps.

    """

    predict: Callable[[Tensor], Tensor]
    classes: list[str]
    square: Square
    thresholds: Thresholds
    device: str = "cpu"

    def logits(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 to (B, C) float32 on the CPU."""
        return self.predict(images).cpu()


def open_classifier(path: Path, device: str, build: BackboneFactory = build_backbone) -> Classifier:
    """Open a student.

    Args:
        path: a run's folder or adapter.safetensors in it; a folder that `cutsew export` wrote, or student.safetensors
            or model.onnx in it.
        device: auto, cpu, cuda or mps.
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
    torch_device = pick_device(device)
    student = load(path, torch_device, build)
    return Classifier(student, student.classes, student.square, thresholds_of(path, student.classes), torch_device)


def thresholds_of(path: Path, classes: list[str]) -> Thresholds:
    """Return the thresholds of a student on disk: those of an export, else those of the run, else 0.5."""
    folder = path if path.is_dir() else path.parent
    stored = read_model_spec(folder / MODEL).get("thresholds")
    if stored is not None:
        return Thresholds(
            stored["rule"], {rule: values for rule, values in stored.items() if rule not in ("rule", "means")}
        )
    if folder.joinpath(table.TABLE).is_file():
        by_stage = table.read_thresholds(folder / table.TABLE, classes)
        return by_stage.get("student", table.plain(len(classes)))
    return table.plain(len(classes))


def _onnx(path: Path, device: str) -> Classifier:

    student = OnnxStudent(path, "cpu" if device == "auto" else device)
    return Classifier(student, student.classes, student.square, student.thresholds)
