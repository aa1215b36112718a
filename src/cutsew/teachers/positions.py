"""Fitting a position embedding to another image size."""

import math

from torch import Tensor

from cutsew.compat import gc_frozen, import_torchvision

import_torchvision()
with gc_frozen():
    from timm.layers.pos_embed import resample_abs_pos_embed


def resize_position_embedding(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a square grid of position embeddings bicubically, as timm does.

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
    resized: Tensor = resample_abs_pos_embed(table[None], list(grid), [side, side])[0]
    return resized
