"""The student as a standalone classifier: its description (model.yaml) and its weights.

- model.yaml, which holds all that is needed besides the weights to rebuild a student.
- The student as a standalone classifier: frozen backbone and adapter, from a file of weights and model.yaml.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor, nn

from cutsew.config.base import Channels, PreprocessingConfig, Spread
from cutsew.config.loading import format_validation_errors
from cutsew.config.named_models import described_as
from cutsew.config.networks import BackboneConfig, BuiltStudent, TrainedModelConfig
from cutsew.config.yaml_file import read_yaml
from cutsew.errors import UserError
from cutsew.method.adapter import Adapter
from cutsew.method.cam import hires_cam
from cutsew.method.linear_head import LinearHead
from cutsew.runtime.batching import require_finite, run_ahead, run_batch_invariant
from cutsew.storage.atomic import atomic_path, write_text
from cutsew.storage.file_digests import file_digest

if TYPE_CHECKING:
    from tqdm import tqdm

    from cutsew.models.frozen_backbone import Backbone

MODEL = "model.yaml"


class _Backbone(BaseModel):
    weights_digest: str
    kind: str


class _Preprocessing(BaseModel):
    size: int
    resize: Literal["squash"]
    interpolation: Literal["bicubic", "bilinear"]
    mean: Channels
    std: Spread


class ModelSpec(BaseModel):
    """What a student's description holds at least."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    format: Literal[1]
    classes: list[str] = Field(min_length=1)
    preprocessing: _Preprocessing
    backbone: _Backbone
    head: Literal["adapter", "linear"]
    adapter: dict[str, Annotated[float, Field(ge=0, le=1e9)]]
    adapter_digest: str | None = None
    weights: str | None = None
    digest: str | None = None
    thresholds: dict[str, str | list[Annotated[float, Field(ge=0, le=1)]]] | None = None

    @model_validator(mode="after")
    def weights_are_named(self) -> Self:
        """Refuse one without the digest of its weights: others could be taken for them."""
        if self.adapter_digest is None and (self.weights is None or self.digest is None):
            raise ValueError("has no weights")
        return self

    @model_validator(mode="after")
    def thresholds_fit(self) -> Self:
        """Refuse rules that have not one threshold per class, and a chosen rule that is not there."""
        rules = dict(self.thresholds or {})
        rule = rules.pop("rule", None)
        rules.pop("means", None)
        if any(not isinstance(values, list) or len(values) != len(self.classes) for values in rules.values()):
            raise ValueError("thresholds: need one per class")
        if self.thresholds is not None and (not isinstance(rule, str) or rule not in rules):
            raise ValueError("thresholds: the rule is not one of those present")
        return self


def read_model_spec(path: Path) -> dict[str, Any]:
    """Read model.yaml.

    Raises:
        UserError: it is missing, or not a student's.

    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; it belongs next to the student's weights, so copy both")
    model: dict[str, Any] = read_yaml(path, "a student's description")
    try:
        ModelSpec.model_validate(model)
    except ValidationError as error:
        reason = "; ".join(format_validation_errors(error, ModelSpec))
        raise UserError(f"{path}: not a valid model description ({reason}); retrain the student") from None
    return model


Logits = npt.NDArray[np.float32]

WEIGHTS = "adapter.safetensors"
MERGED_WEIGHTS = "student.safetensors"
"""Backbone and adapter in one file, as `cutsew export` writes them."""

BackboneFactory = Callable[..., "Backbone"]
"""Makes a backbone of its settings, a device and, with a whole student, the tower's tensors."""


def build_backbone(settings: BuiltStudent, device: str, state: dict[str, Tensor] | None = None) -> "Backbone":
    """Build the frozen backbone that the settings name, with its own weights or those of `state`."""
    from cutsew.models import backbones  # noqa: PLC0415 - its models load only where they are used

    return backbones.build(settings, device, state)


class Student(nn.Module):
    """The classifier.

    Attributes:
        classes: C names, in the order of the logits.
        image_size: S, side of the square input in pixels; images are squashed to it.
        square: that size, and the interpolation.

    """

    def __init__(self, backbone: "Backbone", adapter: Adapter | LinearHead, classes: list[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.classes = classes
        self.device = backbone.device
        self.image_size = int(backbone.image_size)
        self.square = backbone.square
        self.eval()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 RGB pixels to (B, C) float32 logits; their sigmoid is each class's probability."""
        features = self.backbone(images)
        return run_batch_invariant(self.adapter, features, features.device)

    def maps(self, images: Tensor, classes: Tensor) -> Tensor:
        """Show where each image's class is seen: HiResCAM on the grid features.

        On the demo's held-out images the map's peak lies on the class's object in 70 %; with Grad-CAM on the same
        features in 44 %, with the last layer's cross-attention, the mean over its heads, in 63 %, by chance in 16 %.
        Attention also marks where a class was searched without success; a gradient only the evidence for it.

        Args:
            images: (B, 3, S, S) uint8.
            classes: (B,) int64, one class of each.

        Returns:
            (B, H, W) float32 in [0, 1] on the CPU.

        """
        features = self.backbone(images)

        def of(rows: Tensor) -> Tensor:
            grid = features[rows].requires_grad_()
            with torch.enable_grad():
                total = self.adapter(grid).gather(1, classes.to(rows.device)[rows, None]).sum()
            (gradients,) = torch.autograd.grad(total, [grid])
            return hires_cam(grid.detach(), gradients)

        return run_batch_invariant(of, torch.arange(len(images)), features.device).cpu()

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """Describe (B, 3, S, S) uint8 images by what the head pools, (B, width) float32 on the CPU."""
        features = self.backbone(images)
        return run_batch_invariant(self.adapter.pool, features, features.device).cpu()


def predict_batches(student: Student, batches: Iterable[Tensor], paths: Sequence[str], bar: "tqdm[Any]") -> Logits:
    """Score images batch by batch.

    Args:
        student: the classifier.
        batches: in the order of the paths, (B, 3, S, S) uint8, or (B, V, 3, S, S) of V views each.
        paths: of the n images, n > 0, to name one by.
        bar: is moved by every image.

    Returns:
        (n, C) or (n, V, C) float32 logits.

    Raises:
        UserError: an answer is not finite.

    """
    logits: list[Logits] = []
    flat = ((batch.shape[:-3], batch.flatten(0, -4)) for batch in batches)
    for shape, answers in run_ahead(student, flat, student.device):
        z = answers.numpy().reshape(*shape, -1)
        require_finite(z, paths[sum(map(len, logits)) :], "the student's logits")
        logits.append(z)
        bar.update(len(z))
    return np.concatenate(logits)


def save(
    weights: Path, adapter: Adapter | LinearHead, backbone: "Backbone", sizes: Mapping[str, Any], classes: list[str]
) -> None:
    """Write adapter.safetensors and, next to it, model.yaml: all that `load` needs.

    Args:
        weights: path of adapter.safetensors.
        adapter: the trained head.
        backbone: that it was trained on.
        sizes: the adapter's keyword arguments; a linear head has none.
        classes: C names.

    """
    with atomic_path(weights) as draft:
        state = {name: value.detach().cpu().contiguous() for name, value in adapter.state_dict().items()}
        draft.write_bytes(serialized(state))  # save_file would make a file that only its owner can read
    more = {} if isinstance(adapter, LinearHead) else {"max_grid": adapter.max_grid}
    model = {
        "format": 1,
        "classes": classes,
        "preprocessing": {"size": backbone.image_size, **backbone.preprocessing.describe()},
        "grid": list(backbone.grid),
        "backbone": backbone.describe(),
        "head": "linear" if isinstance(adapter, LinearHead) else "adapter",
        "adapter": {"channels": backbone.width, **sizes, **more},
        "adapter_digest": file_digest(weights),
    }
    write_text(weights.with_name(MODEL), yaml.safe_dump(model, sort_keys=False, allow_unicode=True))


def load(path: Path | str, device: str = "cpu", build: BackboneFactory = build_backbone) -> Student:
    """Load a student from model.yaml and the weights next to it.

    Args:
        path: the folder of both, or the file of weights in it: a run's adapter.safetensors, whose backbone is rebuilt,
        or the student.safetensors of `cutsew export`, which holds the backbone too.
        device: cpu, cuda or mps.
        build: makes the backbone from its settings.

    Raises:
        UserError: a file is missing or damaged, the two do not belong together, or the backbone's weights are not
            those that the adapter was trained on.

    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    model = read_model_spec(folder / MODEL)
    whole = model.get("weights") == MERGED_WEIGHTS
    weights = folder / (MERGED_WEIGHTS if whole else WEIGHTS) if path.is_dir() else path
    state = _read_weights(weights, model["digest" if whole else "adapter_digest"])
    described = model["backbone"]
    try:
        own = (*BackboneConfig.model_fields, described["kind"])
        named = {name: described[name] for name in own if name in described}
        settings = TrainedModelConfig.model_validate({"backbone": named}).backbone
        settings = trained_with(settings, model["preprocessing"])
    except ValidationError as error:
        reason = "; ".join(format_validation_errors(error, TrainedModelConfig))
        raise UserError(f"{folder / MODEL}: {reason}; train again") from None
    if whole:
        with described_as(getattr(settings, settings.kind).model, described.get("architecture")):
            backbone = build(settings, device, _part(state, "backbone."))
    else:
        backbone = build(settings, device)
    if backbone.weights_digest != described["weights_digest"]:
        raise UserError(f"{folder / MODEL}: the backbone's weights differ from those of the training; restore them")
    try:
        build_head = LinearHead if model["head"] == "linear" else Adapter
        adapter = build_head(classes=len(model["classes"]), **model["adapter"])
        adapter.load_state_dict(_part(state, "adapter.") if whole else state)
    except (RuntimeError, TypeError, ValueError, ArithmeticError, AssertionError):
        raise UserError(f"{weights}: its weights do not fit {MODEL}; train again") from None
    return Student(backbone, adapter.to(device), list(model["classes"]))


def trained_with(settings: BuiltStudent, preprocessing: Mapping[str, Any]) -> BuiltStudent:
    """Return settings whose backbone is preprocessed as model.yaml says, whatever its weights come with elsewhere.

    Raises:
        ValidationError: it says nothing that can be used.

    """
    preprocessing_used = PreprocessingConfig.model_validate(
        {name: preprocessing.get(name) for name in PreprocessingConfig.model_fields}
    )
    section = getattr(settings, settings.kind).model_copy(update={"preprocessing": preprocessing_used})
    return settings.model_copy(update={settings.kind: section})


def _read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the workflow to train the student")
    if file_digest(path) != digest:
        raise UserError(f"{path}: does not belong to the {MODEL} next to it; retrain, or copy both files together")
    try:
        return load_file(path)
    except SafetensorError:
        raise UserError(f"{path}: not a complete safetensors file; train again") from None


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
