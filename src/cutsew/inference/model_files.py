"""The student as files that need no run: an ONNX graph, or all weights in one safetensors file.

- The student as one ONNX graph: normalization, backbone and adapter, from pixels to probabilities.
- The whole student, backbone included, in one safetensors file: no package or hub is needed for weights.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save as serialized
from torch import Tensor, nn

from cutsew.errors import UserError
from cutsew.models.student import MERGED_WEIGHTS, MODEL, Student
from cutsew.runtime.lazy_imports import optional_package
from cutsew.storage.atomic import atomic_path, write_text
from cutsew.storage.file_digests import file_digest
from cutsew.storage.result_tables import Thresholds

OPSET = 18
"""Operators of 2022, which every runtime of today knows."""

INPUT, OUTPUTS = "pixels", ("logits", "probabilities")
PREPROCESSING = "RGB, squashed to S x S by Pillow's {}, channels first, 0 to 255; normalized in the graph"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3
"""Logits of torch and onnxruntime may differ by no more; 1e-6 is typical."""


class Graph(nn.Module):
    """What is exported: float32 throughout, whatever precision the student is set to."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.pixels, self.tower, self.adapter = student.backbone.pixels, student.backbone.tower, student.adapter
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 3, S, S) uint8 to logits and probabilities, (B, C) float32 each."""
        logits = self.adapter(self.tower(self.pixels(pixels)))
        return logits, logits.sigmoid()


def require() -> None:
    """Refuse in one line where a package of the extra `export` is missing."""
    for name in PACKAGES:
        optional_package(name, "export", "ONNX")


def versions() -> dict[str, str]:
    """Return the versions of the packages that write and run ONNX."""
    return {name: version(name) for name in PACKAGES}


def export(path: Path, student: Student, thresholds: Thresholds) -> float:
    """Write model.onnx and compare its outputs with torch's.

    Args:
        path: of the file.
        student: on the CPU.
        thresholds: kept in the file's metadata.

    Returns:
        The largest difference of a logit of random images, in batches of 1 and 3, between torch and onnxruntime.

    Raises:
        UserError: a package is missing, the backbone cannot be exported, or the two do not agree.

    """
    require()
    write_graph(path, Graph(student), student.image_size, OUTPUTS, metadata(student, thresholds))
    return difference(path, student)


def write_graph(
    path: Path, model: nn.Module, size: int, outputs: Sequence[str], kept: Mapping[str, str] | None = None
) -> None:
    """Write a module on (B, 3, S, S) uint8 pixels by torch's own exporter (torch.export and onnxscript).

    Args:
        path: of the file.
        model: on the CPU, in eval mode.
        size: S.
        outputs: names of what it returns.
        kept: metadata_props of the file.

    Raises:
        UserError: the module cannot be exported.

    """
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UserError(f"this backbone cannot be written as ONNX ({reason[:200]}); add --no-onnx") from None
    assert program is not None  # dynamo=True always gives one
    program.model.metadata_props.update(kept or {})
    program.save(path)


def metadata(student: Student, thresholds: Thresholds) -> dict[str, str]:
    """Return metadata_props: plain text, or JSON where it is a list or an object."""
    return {
        "producer": "cutsew",
        "classes": json.dumps(student.classes, ensure_ascii=False),
        "image_size": str(student.image_size),
        "interpolation": student.square.interpolation,
        "preprocessing": PREPROCESSING.format(student.square.interpolation),
        "threshold_rule": thresholds.rule,
        "thresholds": json.dumps(thresholds.choose().tolist()),
        "thresholds_by_rule": json.dumps(thresholds.by_rule),
        "backbone_digest": student.backbone.weights_digest,
    }


def difference(path: Path, student: Student) -> float:
    """Compare torch and onnxruntime on random pixels.

    Raises:
        UserError: they differ by more than TOLERANCE.

    """
    runtime = optional_package("onnxruntime", "export", "ONNX")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    most = 0.0
    for count in (1, 3):
        shape = (count, 3, student.image_size, student.image_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        (actual,) = session.run([OUTPUTS[0]], {INPUT: images.numpy()})
        with torch.inference_mode():
            expected, _ = Graph(student)(images)
        most = max(most, float((torch.from_numpy(actual) - expected).abs().max()))
    if not most <= TOLERANCE:
        raise UserError(f"{path.name}: its logits differ from torch's by {most:.3g}; add --no-onnx")
    return most


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own workings away from the user."""
    before = logging.root.manager.disable
    logging.disable(max(logging.WARNING, before))
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


PARTS = ("backbone", "adapter")


def save(folder: Path, student: Student, description: dict[str, Any], thresholds: Thresholds) -> None:
    """Write student.safetensors and model.yaml, which `cutsew.models.student.load` reads.

    Args:
        folder: that they are written to.
        student: the classifier.
        description: model.yaml that it was loaded from.
        thresholds: per-class decision thresholds.

    """
    modules = {"backbone": student.backbone.tower, "adapter": student.adapter}
    state = {
        f"{part}.{name}": value.detach().cpu().contiguous().clone()
        for part in PARTS
        for name, value in modules[part].state_dict().items()
    }
    with atomic_path(folder / MERGED_WEIGHTS) as draft:
        draft.write_bytes(serialized(state))
    model = {name: value for name, value in description.items() if name not in ("adapter_digest", "digest")}
    model["backbone"] = student.backbone.describe()
    model |= {"weights": MERGED_WEIGHTS, "digest": file_digest(folder / MERGED_WEIGHTS)}
    model["thresholds"] = {"rule": thresholds.rule, "means": thresholds.in_words(), **thresholds.by_rule}
    write_text(folder / MODEL, yaml.safe_dump(model, sort_keys=False, allow_unicode=True))
