"""Any timm model that gives a feature map as the backbone."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cutsew.config.named_models import OFFLINE
from cutsew.config.networks import TimmModelConfig, TimmStudentConfig
from cutsew.errors import UserError, first_line
from cutsew.models import checkpoints, offline_models
from cutsew.models.frozen_backbone import Backbone
from cutsew.models.preprocessing import of_timm
from cutsew.runtime.lazy_imports import gc_frozen, import_torchvision

import_torchvision()
with gc_frozen():
    import timm

SETTING = "student.timm.weights"


class LastFeatures(nn.Module):
    """A timm model up to its last grid of features: prefix tokens, pooling and classifier are left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, S, S) to (B, D, H, W)."""
        result = self.model.forward_intermediates(pixels, indices=[-1], intermediates_only=True)  # type: ignore[operator]
        features: Tensor = result[0]
        return features


def timm_backbone(student: TimmStudentConfig, device: str, state: dict[str, Tensor] | None = None) -> Backbone:
    """Build the backbone.

    Args:
        student: its settings.
        device: cpu, cuda or mps.
        state: the tower's tensors by name; None to get the weights that are set.

    Raises:
        UserError: an unknown model, one without feature maps, or weights that cannot be had.

    """
    settings = student.timm
    if not timm.is_model(settings.model):
        raise UserError(f"student.timm.model: timm has no model {settings.model}; see timm.list_models()")
    preprocessing = of_timm(settings)
    if state is not None:
        model = _bare(settings)
    else:
        model = _packaged(settings.model) if settings.weights == "package" else _weighted(settings)
    if not hasattr(model, "forward_intermediates"):
        raise UserError(f"student.timm.model: {settings.model} gives no feature map; choose another")
    tower = LastFeatures(model.eval())
    if state is not None:
        checkpoints.load(tower, state, settings.model, "student.timm.model")
    return Backbone(tower, preprocessing, settings.image_size, student, device)


def _packaged(name: str) -> Any:  # noqa: ANN401
    if name != offline_models.MODEL:
        raise UserError(
            f"{SETTING}: package has only {offline_models.MODEL}; set pretrained or the path of a local file"
        )
    return offline_models.efficientnet_lite0(SETTING)


def _weighted(settings: TimmModelConfig) -> Any:  # noqa: ANN401
    return _fetched(settings) if settings.weights == "pretrained" else _local(settings)


def _bare(settings: TimmModelConfig) -> Any:  # noqa: ANN401
    """Create a model with random weights, for a caller that has its own."""
    with torch.random.fork_rng(devices=[]):
        return _create(settings, pretrained=False)


def _create(settings: TimmModelConfig, **options: Any) -> Any:  # noqa: ANN401  # timm's classes share no type
    """Create a model, with the image size if its kind has position embeddings of fixed size."""
    try:
        return timm.create_model(settings.model, img_size=settings.image_size, **options)
    except TypeError:
        return timm.create_model(settings.model, **options)


def _fetched(settings: TimmModelConfig) -> Any:  # noqa: ANN401
    try:
        return _create(settings, pretrained=True)
    except Exception as error:  # the hub's client raises dozens of kinds
        raise UserError(
            f"{SETTING}: {settings.model} cannot be downloaded ({first_line(error)}); give a local file; {OFFLINE}"
        ) from None


def _local(settings: TimmModelConfig) -> Any:  # noqa: ANN401
    """Read the file safely, then let timm fit its tensors to the model and the image size."""
    state = checkpoints.read_state_dict(Path(settings.weights), SETTING)
    try:
        model = _create(settings, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"{SETTING}: {settings.weights}: not the weights of {settings.model} ({first_line(error)});"
            " give the checkpoint of the model that is set"
        ) from None
    model.pretrained_cfg.pop("state_dict", None)
    return model
