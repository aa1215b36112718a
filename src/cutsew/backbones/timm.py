"""Any timm model that gives a feature map as the backbone."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cutsew import checkpoints
from cutsew.backbones.base import Backbone
from cutsew.compat import import_torchvision
from cutsew.config.student import TimmStudent
from cutsew.errors import UserError
from cutsew.pixels import Pixels
from cutsew.teachers import efficientnet

import_torchvision()
import timm  # noqa: E402

SETTING = "student.timm.weights"


class LastFeatures(nn.Module):
    """A timm model up to its last grid of features: prefix tokens, pooling and classifier are left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, S, S) to (B, D, H, W)."""
        found = self.model.forward_intermediates(pixels, indices=[-1], intermediates_only=True)  # type: ignore[operator]
        features: Tensor = found[0]
        return features


def timm_backbone(settings: TimmStudent, device: str) -> Backbone:
    """Build the backbone.

    Raises:
        UserError: an unknown model, one without feature maps, or weights that cannot be had.

    """
    if settings.model not in timm.list_models():
        raise UserError(f"student.timm.model: timm has no model {settings.model}; see timm.list_models()")
    if settings.weights == "package":
        model, mean, std = _packaged(settings.model)
    else:
        model = _fetched(settings) if settings.weights == "pretrained" else _local(settings)
        mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    if not hasattr(model, "forward_intermediates"):
        raise UserError(f"student.timm.model: {settings.model} gives no feature map; take another")
    description = {"kind": "timm", "timm": settings.model_dump()}
    return Backbone(LastFeatures(model.eval()), Pixels(mean, std), settings.image_size, description, device)


def _packaged(name: str) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    if name != efficientnet.MODEL:
        raise UserError(f"{SETTING}: package has only {efficientnet.MODEL}; set pretrained or the path of a local file")
    return efficientnet.efficientnet_lite0(SETTING), efficientnet.MEAN, efficientnet.STD


def _create(settings: TimmStudent, **options: Any) -> Any:  # noqa: ANN401  # timm's classes share no type
    """Create a model with weights, told of the image size where its kind has position embeddings of fixed size."""
    try:
        return timm.create_model(settings.model, pretrained=True, img_size=settings.image_size, **options)
    except TypeError:
        return timm.create_model(settings.model, pretrained=True, **options)


def _fetched(settings: TimmStudent) -> Any:  # noqa: ANN401
    try:
        return _create(settings)
    except Exception as error:  # the hub's client raises dozens of kinds
        raise UserError(
            f"{SETTING}: {settings.model} cannot be downloaded ({_first_line(error)}); give a local file"
        ) from None


def _local(settings: TimmStudent) -> Any:  # noqa: ANN401
    """Read the file safely, then let timm fit its tensors to the model and the image size."""
    state = checkpoints.read_state_dict(Path(settings.weights), SETTING)
    try:
        model = _create(settings, pretrained_cfg_overlay={"state_dict": state})
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"{SETTING}: {settings.weights}: not the weights of {settings.model} ({_first_line(error)});"
            " give the checkpoint of the model that is set"
        ) from None
    model.pretrained_cfg.pop("state_dict", None)
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
