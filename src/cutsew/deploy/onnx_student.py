"""A student that onnxruntime runs, with the interface of cutsew.student.Student."""

import json
from pathlib import Path

import torch
from torch import Tensor

from cutsew.artefacts.thresholds import Thresholds
from cutsew.deploy.graph import INPUT, OUTPUTS, package
from cutsew.errors import UserError
from cutsew.numerics.views import Square


class OnnxStudent:
    """The classifier of a model.onnx that `cutsew export` wrote.

    Args:
        path: the file.
        device: cpu or cuda; cuda needs onnxruntime's build for it.

    Attributes:
        classes: C names, in the order of the logits.
        image_size: S, side of the square input in pixels; photos are squashed to it.
        square: that size, and the interpolation.
        thresholds: from which probability each class counts as named.

    Raises:
        UserError: no such file, not one that `cutsew export` wrote, or a package or device is missing.

    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        runtime = package("onnxruntime")
        if not path.is_file():
            raise UserError(f"{path}: no such file; write it with cutsew export")
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        if provider not in runtime.get_available_providers():
            raise UserError("--device: this onnxruntime has no cuda; install onnxruntime-gpu, or set --device cpu")
        try:
            self._session = runtime.InferenceSession(path, providers=[provider])
            kept = self._session.get_modelmeta().custom_metadata_map
            self.classes = [str(name) for name in json.loads(kept["classes"])]
            self.image_size = int(kept["image_size"])
            self.square = Square(self.image_size, kept["interpolation"])
            self.thresholds = Thresholds(kept["threshold_rule"], json.loads(kept["thresholds_by_rule"]))
        except Exception:  # onnxruntime raises a kind of its own for each way that a file can be damaged
            raise UserError(f"{path}: not a whole ONNX file of cutsew export; export the student again") from None

    def __call__(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 RGB pixels to (B, C) float32 logits; their sigmoid is each class's probability."""
        (logits,) = self._session.run([OUTPUTS[0]], {INPUT: images.cpu().numpy()})
        return torch.from_numpy(logits)
