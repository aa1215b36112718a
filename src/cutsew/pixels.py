"""From 8-bit pixels to a model's input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """Normalise photos: (x / 255 - mean) / std per channel, laid out channels last, which convolutions like best.

    Args:
        mean: of the three channels, for pixels in [0, 1].
        std: of the three channels, likewise.

    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Turn (B, 3, H, W) uint8 into float32 of the same shape."""
        if images.is_contiguous(memory_format=torch.channels_last):
            return self._by_rows(images)
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _by_rows(self, images: Tensor) -> Tensor:
        """Do the same for a batch that is laid out channels last, a row at a time instead of a pixel at a time."""
        count, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
        mean, std = (value.reshape(channels).repeat(width) for value in (self.mean, self.std))
        normal = rows.float().sub_(mean).div_(std)
        return normal.reshape(count, height, width, channels).permute(0, 3, 1, 2)
