"""What every backbone has in common: it is frozen."""

from typing import Any

import torch
from torch import Tensor, nn

from cutsew.config.networks import BackboneConfig
from cutsew.method.crops import Square
from cutsew.models.checkpoints import weights_digest
from cutsew.models.image_encoder import Normalize
from cutsew.models.preprocessing import Preprocessing
from cutsew.runtime.batching import map_images, run_batch_invariant
from cutsew.runtime.device import with_precision


class Backbone(nn.Module):
    """A frozen image encoder that gives grid features to the adapter.

    It stays in eval mode whatever is passed to `train`, so the statistics of its BatchNorm layers are fixed too, takes
    no gradient, and on a CPU gives an image the same features bit for bit whatever batch it comes in.

    Args:
        tower: from normalized (B, 3, S, S) float32 to (B, D, H, W).
        preprocessing: of images.
        image_size: S, side of the square input in pixels.
        settings: what builds it again.
        device: cpu, cuda or mps.
        architecture: description of a model that open_clip does not know by name (`clip_models.Clip.architecture`).

    Attributes:
        device: cpu, cuda or mps.
        width: D, channels of the features.
        grid: (H, W) of the features.
        image_size: S.
        preprocessing: of images.
        weights_digest: SHA-256 of its weights.

    """

    def __init__(
        self,
        tower: nn.Module,
        preprocessing: Preprocessing,
        image_size: int,
        settings: BackboneConfig,
        device: str,
        architecture: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.weights_digest = weights_digest(tower)
        self._settings = settings
        self._architecture = architecture
        self.device = device
        self.tower = tower.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.pixels = Normalize(preprocessing.mean, preprocessing.std).to(device)
        self.requires_grad_(False)
        self.eval()
        self._encode = with_precision(
            lambda images: self.tower(self.pixels(images)),
            settings.precision,
            device,
            compiled=settings.compiled,
            setting="student",
        )
        blank = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
        (seen,) = map_images(lambda image: self.tower(self.pixels(image)), [blank], device)
        _, self.width, *grid = seen.shape
        self.grid = (int(grid[0]), int(grid[1]))

    def forward(self, images: Tensor) -> Tensor:
        """Encode (B, 3, S, S) uint8 images: (B, D, H, W) float32 on the backbone's device, without gradient."""
        return run_batch_invariant(self._encode, images, self.device)

    def train(self, mode: bool = True) -> "Backbone":  # noqa: ARG002, FBT001, FBT002
        """Stay in eval mode: it is frozen."""
        return super().train(False)

    @property
    def square(self) -> Square:
        """How it takes images."""
        return Square(self.image_size, self.preprocessing.interpolation)

    def describe(self) -> dict[str, Any]:
        """Return what builds it again, besides its preprocessing, and the digest of its weights."""
        chosen = self._settings.model_dump(include={"kind", "precision", "compiled", self._settings.kind})
        for name in ("preprocessing", "tag"):  # what they settle is known by now
            chosen[self._settings.kind].pop(name, None)
        if self._architecture is not None:
            chosen["architecture"] = self._architecture
        return {**chosen, "width": self.width, "weights_digest": self.weights_digest}
