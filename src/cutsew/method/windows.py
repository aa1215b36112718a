"""Windows of one larger look: a convolutional tower sees the whole image once, and regions of its last grid are pooled.

Not the paper's: a crop costs a pass of the tower, a window costs next to nothing.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate

from cutsew.method.crops import EDGES

Pool = Callable[[Tensor], Tensor]
"""From (B, K, k, k) features of a window to its (B, D) embedding."""


def window_starts(grid: int, size: int, count: int) -> list[int]:
    """Spread `count` windows of `size` cells evenly along a grid's side of `grid` cells.

    Raises:
        ValueError: there are fewer than `count` places.

    """
    places = grid - size + 1
    if places < count:
        raise ValueError(f"{count} windows of {size} cells have only {max(0, places)} places on a grid of {grid}")
    return [int(place) for place in np.rint(np.linspace(0, grid - size, count) if count > 1 else [(grid - size) / 2])]


def window_boxes(width: int, height: int, grid: int, size: int, count: int) -> npt.NDArray[np.float32]:
    """Return the region of the image under each window, row by row.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        grid: cells along each side.
        size: cells along each side of a window.
        count: windows along each side.

    Returns:
        (count^2, 5) whole pixels, as `method.crops.crop_boxes` gives them: left, top, right, bottom, and 0: not
        flipped. Edges are rounded outwards.

    """
    starts = window_starts(grid, size, count)
    boxes = [
        (
            column * width // grid,
            row * height // grid,
            -(-(column + size) * width // grid),
            -(-(row + size) * height // grid),
            0,
        )
        for row in starts
        for column in starts
    ]
    return np.array(boxes, dtype=np.float32).reshape(-1, len(EDGES))


def pool_windows(features: Tensor, pool: Pool, size: int, count: int, *, whole: bool = False) -> Tensor:
    """Pool every window as the model pools a whole grid.

    Args:
        features: (B, K, G, G), the tower's last grid.
        pool: the model's own pooling and projection.
        size: cells along each side of a window.
        count: windows along each side.
        whole: the whole grid is pooled too, and comes first.

    Returns:
        (B, count^2, D), row by row; with `whole` one more.

    """
    starts = window_starts(features.shape[-1], size, count)
    parts = [pool(features)] if whole else []
    parts += [pool(features[:, :, row : row + size, column : column + size]) for row in starts for column in starts]
    return torch.stack(parts, dim=1)


def resize_window(window: Tensor, side: int) -> Tensor:
    """Bring (B, K, k, k) features to the side that position embeddings are for: bilinear up, means down."""
    if window.shape[-1] == side:
        return window
    if window.shape[-1] > side:
        return adaptive_avg_pool2d(window, side)
    return interpolate(window, size=(side, side), mode="bilinear", align_corners=False)


class WindowAttentionPool(nn.Module):
    """The attention pool of CLIP's ResNets over windows, with queries, keys and values of all cells computed once.

    They are linear in features and positions, and so is `resize_window`; so the result equals the model's own pool on
    each resized window, positions applied per window.

    Args:
        pool: open_clip's AttentionPool2d.
        size: cells along each side of a window.
        count: windows along each side.
        whole: the whole grid is pooled too, and comes first.

    """

    def __init__(self, pool: nn.Module, size: int, count: int, *, whole: bool = False) -> None:
        super().__init__()
        self.pool, self.size, self.count, self.whole = pool, size, count, whole

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, K, G, G) features to embeddings as `pool_windows` does."""
        pool: Any = self.pool
        position: Tensor = pool.positional_embedding
        side, heads = round((len(position) - 1) ** 0.5), int(pool.num_heads)
        projections = (pool.q_proj, pool.k_proj, pool.v_proj)
        maps = torch.cat([conv2d(features, one.weight[:, :, None, None]) for one in projections], dim=1)
        query, key, value = (one(position) for one in projections)  # positions and biases

        def attend(window: Tensor) -> Tensor:
            cells = resize_window(window, side).flatten(2)
            tokens = torch.cat([cells.mean(dim=2, keepdim=True), cells], dim=2).transpose(1, 2)  # (B, 1 + n^2, 3 K)
            q, k, v = tokens.chunk(3, dim=2)
            q, k, v = (
                one.unflatten(2, (heads, -1)).transpose(1, 2) for one in (q[:, :1] + query[:1], k + key, v + value)
            )
            weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(dim=-1)
            pooled: Tensor = pool.c_proj((weights @ v).transpose(1, 2).flatten(2)[:, 0])
            return pooled

        return pool_windows(maps, attend, self.size, self.count, whole=self.whole)
