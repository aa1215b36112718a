"""The backbone that the settings name: any open_clip tower, or any timm model.

- Any open_clip visual tower, without its pooling, as the backbone.
- Frozen image encoders that give grid features to the adapter.
"""

from torch import Tensor, nn

from cutsew.config.networks import BuiltStudent, OpenClipStudentConfig
from cutsew.models import checkpoints
from cutsew.models.frozen_backbone import Backbone


class GridOfFeatures(nn.Module):
    """A visual tower up to its last grid of features: the class token and the pooling are left out."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, S, S) to (B, D, H, W)."""
        result = self.visual.forward_intermediates(pixels, indices=[-1], intermediates_only=True)  # type: ignore[operator]
        features: Tensor = result["image_intermediates"][0]
        return features


def open_clip_backbone(student: OpenClipStudentConfig, device: str, state: dict[str, Tensor] | None = None) -> Backbone:
    """Build the backbone; only the visual tower is kept in memory.

    Args:
        student: its settings.
        device: cpu, cuda or mps.
        state: the tower's tensors by name; None to get the weights that are set.

    Raises:
        UserError: the model or its weights cannot be had.

    """
    from cutsew.models import clip as clip_models  # noqa: PLC0415 - a timm student needs no open_clip

    settings = student.open_clip
    clip = clip_models.load_clip(settings, "student.open_clip", weights=state is None)
    tower = GridOfFeatures(clip.model.visual)  # type: ignore[arg-type]
    if state is not None:
        checkpoints.load(tower, state, settings.model, "student.open_clip.model")
    resolved = settings.model_copy(update={"quick_gelu": clip.quick_gelu})
    rebuilt = student.model_copy(update={"open_clip": resolved})
    return Backbone(tower, clip.preprocessing, clip.image_size, rebuilt, device, clip.architecture)


__all__ = ["Backbone", "build"]


def build(student: BuiltStudent, device: str, state: dict[str, Tensor] | None = None) -> Backbone:
    """Build the backbone that is set.

    Args:
        student: of kind open_clip or timm.
        device: cpu, cuda or mps.
        state: its tower's tensors by name; None to get them from where the settings say.

    Raises:
        UserError: a model or its weights cannot be had.

    """
    if student.kind == "open_clip":
        return open_clip_backbone(student, device, state)
    if student.kind == "timm":
        from cutsew.models.timm_backbone import timm_backbone  # noqa: PLC0415

        return timm_backbone(student, device, state)
    raise ValueError("student.kind none has no backbone")
