"""Frozen image encoders that give grid features to the adapter."""

from torch import Tensor

from cutsew.backbones.base import Backbone
from cutsew.config.student import Student

__all__ = ["Backbone", "build"]


def build(student: Student, device: str, state: dict[str, Tensor] | None = None) -> Backbone:
    """Build the backbone that is set.

    Args:
        student: of kind open_clip or timm.
        device: cpu or cuda.
        state: its tower's tensors by name; None to get them from where the settings say.

    Raises:
        UserError: a model or its weights cannot be had.

    """
    if student.kind == "open_clip":
        from cutsew.backbones.open_clip import open_clip_backbone  # noqa: PLC0415

        return open_clip_backbone(student, device, state)
    if student.kind == "timm":
        from cutsew.backbones.timm import timm_backbone  # noqa: PLC0415

        return timm_backbone(student, device, state)
    raise ValueError("student.kind none has no backbone")
