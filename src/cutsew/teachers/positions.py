"""Fitting a position embedding to another image size."""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from cutsew.compat import gc_frozen, import_torchvision
from cutsew.config.method import STRIDE, not_whole_cells
from cutsew.errors import UserError
from cutsew.named_models import first_line

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


def at_side(model: nn.Module, side: int, name: str) -> nn.Module:
    """Return an open_clip model whose visual tower takes square images of another side.

    Its position embeddings are resized to the grid of that side: those of a vision transformer or of a CLIP ResNet's
    attention pool as open_clip resizes a checkpoint's, those of a timm trunk by timm.

    Args:
        model: open_clip model with a `visual` tower; it is left as it is, and shares all other weights.
        side: in pixels.
        name: of the model, for messages.

    Raises:
        UserError: the side is not a multiple of the tower's patch, or the tower takes one size only.

    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    resized = deepcopy(model, shared)
    visual: Any = resized.get_submodule("visual")
    refusal = not_whole_cells(side, _cell(visual), name)
    if refusal is not None:
        raise UserError(refusal)
    try:
        if hasattr(visual, "trunk"):
            visual.set_input_size(side)
        else:
            owner = visual.attnpool if hasattr(visual, "layer4") else visual
            grid = side // _cell(visual)
            table = resize_position_embedding(owner.positional_embedding.detach(), (grid, grid))
            owner.positional_embedding = nn.Parameter(table, requires_grad=False)
        example = next(visual.parameters())
        with torch.no_grad():
            visual(torch.zeros(1, 3, side, side, dtype=example.dtype, device=example.device))
    except (AttributeError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise UserError(
            f"cut.tiles: {name}'s tower takes no images of {side} pixels ({first_line(error)}); set side: null"
        ) from None
    return resized


def _cell(visual: Any) -> int:  # noqa: ANN401 - open_clip's towers share no type
    """Return the side in pixels of a tower's patch, or of a cell of a CLIP ResNet's grid; 1 where any side will do."""
    if hasattr(visual, "layer4"):
        return STRIDE
    size = getattr(visual, "patch_size", None) or getattr(getattr(visual, "trunk", None), "patch_embed", None)
    size = getattr(size, "patch_size", size)
    if isinstance(size, tuple):
        size = size[0]
    return size if isinstance(size, int) else 1
