"""The student as a standalone classifier: frozen backbone and adapter, from two files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cutsew.artefacts.atomic import replacing, write_text
from cutsew.artefacts.store import file_digest
from cutsew.config.student import Student as StudentSettings
from cutsew.errors import UserError
from cutsew.numerics.adapter import Adapter
from cutsew.steady import steadily

if TYPE_CHECKING:
    from cutsew.backbones.base import Backbone

MODEL, WEIGHTS = "model.yaml", "adapter.safetensors"
Build = Callable[[StudentSettings, str], "Backbone"]


def build_backbone(settings: StudentSettings, device: str) -> "Backbone":
    """Build the frozen backbone that the settings name."""
    from cutsew import backbones  # noqa: PLC0415 - its models load only where they are used

    return backbones.build(settings, device)


class Student(nn.Module):
    """The classifier.

    Attributes:
        classes: C names, in the order of the logits.
        image_size: S, side of the square input in pixels; photos are squashed to it (Pillow's bicubic).

    """

    def __init__(self, backbone: "Backbone", adapter: Adapter, classes: list[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.classes = classes
        self.image_size = int(backbone.image_size)
        self.eval()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 RGB pixels to (B, C) float32 logits; their sigmoid is each class's probability."""
        features = self.backbone(images)
        return steadily(self.adapter, features, features.device)


def save(weights: Path, adapter: Adapter, backbone: "Backbone", sizes: Mapping[str, Any], classes: list[str]) -> None:
    """Write adapter.safetensors and, beside it, model.yaml: all that `load` needs.

    Args:
        weights: path of adapter.safetensors.
        adapter: the trained adapter.
        backbone: that it was trained on.
        sizes: the adapter's keyword arguments.
        classes: C names.

    """
    with replacing(weights) as draft:
        state = {name: value.detach().cpu().contiguous() for name, value in adapter.state_dict().items()}
        save_file(state, draft)
    model = {
        "format": 1,
        "classes": classes,
        "preprocessing": {"size": backbone.image_size, "resize": "squash", "interpolation": "bicubic"},
        "grid": list(backbone.grid),
        "backbone": backbone.describe(),
        "adapter": {"channels": backbone.width, **sizes, "max_grid": adapter.max_grid},
        "adapter_digest": file_digest(weights),
    }
    write_text(weights.with_name(MODEL), yaml.safe_dump(model, sort_keys=False, allow_unicode=True))


def load(path: Path, device: str = "cpu", build: Build = build_backbone) -> Student:
    """Load a student from model.yaml and adapter.safetensors alone.

    Args:
        path: the folder of both, or adapter.safetensors in it.
        device: cpu or cuda.
        build: makes the backbone from its settings.

    Raises:
        UserError: a file is missing or damaged, the two do not belong together, or the backbone's weights are not
            those that the adapter was trained on.

    """
    folder = path if path.is_dir() else path.parent
    weights = folder / WEIGHTS if path.is_dir() else path
    model = _read_model(folder / MODEL)
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; run the workflow to train the student")
    if file_digest(weights) != model["adapter_digest"]:
        raise UserError(f"{weights}: does not belong to the {MODEL} beside it; train again or copy both files together")
    described = model["backbone"]
    chosen = {"kind": described["kind"], described["kind"]: described[described["kind"]]}
    backbone = build(StudentSettings.model_validate(chosen), device)
    if backbone.weights_digest != described["weights_digest"]:
        raise UserError(f"{folder / MODEL}: the backbone's weights differ from those of the training; restore them")
    adapter = Adapter(classes=len(model["classes"]), **model["adapter"])
    try:
        adapter.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError):
        raise UserError(f"{weights}: its weights do not fit {MODEL}; train again") from None
    return Student(backbone, adapter.to(device), list(model["classes"]))


def _read_model(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; it stands beside {WEIGHTS}, so copy both")
    try:
        model = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        model = None
    wanted = {"format", "classes", "backbone", "adapter", "adapter_digest"}
    if not isinstance(model, dict) or not wanted <= set(model) or model["format"] != 1:
        raise UserError(f"{path}: not a student's description; train again to make it")
    return model
