"""Fitting a position embedding to another image size."""

import math

from torch import Tensor, cat
from torch.nn.functional import interpolate


def resize_position_embedding(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a square grid of position embeddings bicubically.

    The first row belongs to the class token (ViT) or the mean token (attention pool of a CLIP ResNet): it has no place
    in the grid and is kept as it is.

    Args:
        table: (1 + n * n, D), the token's row first.
        grid: height and width of the wanted grid, in cells.

    Returns:
        (1 + height * width, D) of the table's dtype; the table itself where it fits.

    Raises:
        ValueError: the rows after the first are no square.

    """
    side = math.isqrt(len(table) - 1)
    if side * side != len(table) - 1:
        raise ValueError(f"{len(table)} position embeddings are no token and a square grid")
    if (side, side) == grid:
        return table
    token, cells = table[:1], table[1:].float()
    image = cells.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = interpolate(image, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return cat([token, resized[0].permute(1, 2, 0).reshape(grid[0] * grid[1], -1).to(table.dtype)])
