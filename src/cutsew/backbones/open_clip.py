"""Any open_clip visual tower, without its pooling, as the backbone."""

from torch import Tensor, nn

from cutsew import checkpoints, clip_models
from cutsew.backbones.base import Backbone
from cutsew.config.student import Student


class GridOfFeatures(nn.Module):
    """A visual tower up to its last grid of features: the class token and the pooling are left out."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, S, S) to (B, D, H, W)."""
        found = self.visual.forward_intermediates(pixels, indices=[-1], intermediates_only=True)  # type: ignore[operator]
        features: Tensor = found["image_intermediates"][0]
        return features


def open_clip_backbone(student: Student, device: str, state: dict[str, Tensor] | None = None) -> Backbone:
    """Build the backbone; only the visual tower is kept in memory.

    Args:
        student: its settings.
        device: cpu or cuda.
        state: the tower's tensors by name; None to get the weights that are set.

    Raises:
        UserError: the model or its weights cannot be had.

    """
    settings = student.open_clip
    clip = clip_models.build(settings, "student.open_clip", weights=state is None)
    tower = GridOfFeatures(clip.model.visual)  # type: ignore[arg-type]
    if state is not None:
        checkpoints.load(tower, state, settings.model, "student.open_clip.model")
    known = settings.model_copy(update={"quick_gelu": clip.quick_gelu})
    rebuilt = student.model_copy(update={"open_clip": known})
    return Backbone(tower, clip.preprocessing, clip.image_size, rebuilt, device, clip.architecture)
