"""Vision-language models that score classes in an image.

- What every teacher can do.
- Vision-language models that name what an image shows.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from cutsew.config.cutting import WindowsConfig
from cutsew.config.networks import Teacher as Settings
from cutsew.models.preprocessing import Preprocessing
from cutsew.models.teacher_grid import WindowEmbedder


class Teacher(Protocol):
    """A vision-language model: image and text embeddings in one space.

    Attributes:
        device: cpu, cuda or mps.
        width: D, of an embedding.
        image_size: side of its square views, in pixels.
        preprocessing: of images; its interpolation is what views must be cut with.
        logit_scale: factor of the cosine before the softmax over the classes (Eq. 3), or before the sigmoid.
        logit_bias: added to scale * cosine by a model trained with a sigmoid loss; None for one trained with a softmax.
        weights_digest: SHA-256 of its weights.

    """

    device: str
    width: int
    image_size: int
    preprocessing: Preprocessing
    logit_scale: float
    logit_bias: float | None
    weights_digest: str

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed views.

        Args:
            images: (B, 3, S, S) uint8 with S = `image_size`.

        Returns:
            (B, D) float32 on the CPU, L2-normalized. On a CPU a row depends on its own view alone, bit for bit.

        """

    def gflop(self) -> float:
        """Count the GFLOP of one view; a multiply-add counts as two."""
        ...

    def at_side(self, side: int) -> Callable[[Tensor], Tensor]:
        """Return what embeds (B, 3, side, side) uint8 views: (B, D) float32 on its device, L2-normalized.

        Raises:
            UserError: the tower takes no views of that side.

        """

    def maps(self, images: Tensor, texts: Tensor, classes: Tensor) -> Tensor:
        """Show where in each view its class is seen: Grad-CAM, always computed in float32.

        Args:
            images: (B, 3, S, S) uint8 with S = `image_size`.
            texts: (C, D) embeddings of all classes, and of background words where there are any, L2-normalized.
            classes: (B,) int64, one class of each view.

        Returns:
            (B, H, W) float32 in [0, 1] on the CPU, H and W of the last grid of features.

        """

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed texts: (n, D) float32 on the CPU, L2-normalized."""

    def windows(self, settings: WindowsConfig) -> WindowEmbedder:
        """Return what embeds the windows of an image's last grid in one pass of the tower.

        Raises:
            UserError: the tower's pooling is not known for windows, or the grid has too few places.

        """
        ...


def build(teacher: Settings, device: str) -> "Teacher":
    """Build the teacher that is set.

    Args:
        teacher: of kind open_clip or conse; kind scores has no model.
        device: cpu, cuda or mps.

    Raises:
        UserError: a model or its weights cannot be had.

    """
    if teacher.kind == "open_clip":
        from cutsew.models.clip_teacher import OpenClipTeacher  # noqa: PLC0415

        return OpenClipTeacher(teacher, device)
    if teacher.kind == "conse":
        from cutsew.models.conse_teacher import ConseTeacher  # noqa: PLC0415

        return ConseTeacher(teacher, device)
    raise ValueError(f"a teacher of kind {teacher.kind} has no model")
