"""Windows of a teacher's last grid: which towers have one, and how theirs is pooled."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from cutsew.config.method import STRIDE, Windows
from cutsew.errors import UserError
from cutsew.numerics.windows import WindowAttentionPool, pool_windows, window_boxes
from cutsew.steady import steadily


class WindowEmbedder:
    """Embeds all windows of photos in one pass of the tower.

    Attributes:
        image_size: side of the photo as the tower sees it, in pixels.

    """

    def __init__(self, windows: Windows, image_size: int) -> None:
        refusal = windows.lacks_places(image_size)
        if refusal is not None:
            raise UserError(refusal)
        self.grid, self.size = windows.cells(image_size)
        self.image_size = self.grid * STRIDE
        self.count = windows.per_side
        self._embed: Callable[[Tensor], Tensor] | None = None
        self._device = "cpu"

    def run_with(self, embed: Callable[[Tensor], Tensor], device: str) -> "WindowEmbedder":
        """Set what maps (B, 3, S, S) uint8 photos on `device` to (B, M, D) embeddings, L2-normalized."""
        self._embed, self._device = embed, device
        return self

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed the windows of (B, 3, S, S) uint8 photos: (B, M, D) float32 on the CPU."""
        assert self._embed is not None
        return steadily(self._embed, images, self._device).cpu()

    def boxes(self, width: int, height: int) -> npt.NDArray[np.float32]:
        """Return the region of a photo under each window, (M, 5), in pixels of the photo."""
        return window_boxes(width, height, self.grid, self.size, self.count)


class ClipWindows(nn.Module):
    """The windows of an open_clip visual tower behind its preprocessing: uint8 photos to (B, M, D)."""

    def __init__(self, visual: Any, pixels: nn.Module, windows: WindowEmbedder) -> None:  # noqa: ANN401
        super().__init__()
        self.pixels, self.visual, self._windows = pixels, visual, windows
        self.attention = None
        if hasattr(visual, "attnpool") and hasattr(visual, "layer4"):
            self.attention = WindowAttentionPool(visual.attnpool, windows.size, windows.count)
        elif not (hasattr(visual, "trunk") and is_convolutional(visual.trunk)):
            name = type(getattr(visual, "trunk", visual)).__name__
            raise UserError(
                f"cut.layout: windows needs a convolutional tower that pools by attention or by the mean, and the "
                f"teacher's is a {name}; set tiles"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 photos to (B, M, D)."""
        visual, x = self.visual, self.pixels(images)
        if self.attention is not None:
            x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x)))))
            pooled: Tensor = self.attention(x)
            return pooled
        return pool_windows(
            visual.trunk.forward_features(x),
            lambda window: visual.head(visual.trunk.forward_head(window)),
            self._windows.size,
            self._windows.count,
        )


def is_convolutional(trunk: Any) -> bool:  # noqa: ANN401 - timm's classes share no type
    """Tell whether a timm model is convolutional throughout and pools its last (B, K, H, W) grid by the mean.

    Where anything attends, every cell has seen the whole photo, and windows all say what the whole says.
    """
    attends = any("attention" in type(module).__name__.lower() for module in trunk.modules())
    pools = [module for module in trunk.modules() if type(module).__name__ == "SelectAdaptivePool2d"]
    return not attends and bool(pools) and all(getattr(pool, "pool_type", None) == "avg" for pool in pools)
