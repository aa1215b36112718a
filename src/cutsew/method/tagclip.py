"""TagCLIP's local-to-global scores (Lin et al., AAAI 2024): patches scored and refined, then class regions.

Names and formulas are the paper's; where its text leaves a choice, its authors' code decides. An image has T patches in
a grid of H rows and W columns, in row-major order. K texts are the C classes followed by background words.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from cutsew.method.prompts import best_wording

Grid = tuple[int, int]
"""Rows and columns of an image's patches."""

Box = tuple[int, int, int, int]
"""First row, first column, and the row and column after the last, in patches."""

HALF = 0.5
"""Share of the way from a class's lowest to its highest patch from which patches belong to its region."""

NEIGHBORS = np.ones((3, 3), dtype=bool)
"""Patches that touch at an edge or a corner are connected."""


def grid_of(width: int, height: int, patch: int, most: int) -> Grid:
    """Return how many patches an image is read in.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        patch: side of a patch, in pixels.
        most: patches; an image of more is made smaller, its shape kept as far as whole patches allow.

    Returns:
        Rows and columns, each side rounded up to whole patches where the image keeps its size.

    """
    own_rows, own_columns = -(-height // patch), -(-width // patch)
    if own_rows * own_columns <= most:
        return own_rows, own_columns
    factor = math.sqrt(most / (width * height))
    rows = max(1, min(int(height * factor), own_rows, most))
    return rows, max(1, min(int(width * factor), own_columns, most // rows))


def coarse_scores(patches: Tensor, texts: Tensor, scale: float, sizes: Sequence[int] | None = None) -> Tensor:
    """P_coarse: what each patch shows, a softmax over all texts.

    Args:
        patches: (T, D), L2-normalized.
        texts: (K, D), L2-normalized; with `sizes` (W, D).
        scale: logit scale, 100 for CLIP.
        sizes: (K,) wordings of each text, whose best one counts, patch by patch; None for one each.

    Returns:
        (T, K) probabilities.

    """
    return best_wording(scale * (patches @ texts.T), sizes).softmax(dim=-1)


def confident_attention(attention: Tensor, votes: int) -> Tensor:
    """M_attn: which patch may speak for which, since at least `votes` blocks attend there more than on average.

    Args:
        attention: (L - 1, T, T) of all blocks before the last, over heads averaged; row i is what patch i attends to.
            The last block's attention is left out of the model and stands for the identity: each patch has its vote
            for itself.
        votes: K, of L.

    Returns:
        (T, T) bool.

    """
    above = attention > attention.mean(dim=(1, 2), keepdim=True)
    return above.sum(dim=0) + torch.eye(attention.shape[1], device=attention.device) >= votes


def class_masks(scores: Tensor, grid: Grid) -> Tensor:
    """M_cls: where each class may be, boxes around the connected patches that are not below its mean score.

    Args:
        scores: (T, K).
        grid: of the patches.

    Returns:
        (T, K) bool; of every class at least one patch.

    """
    high = scores >= torch.minimum(scores.mean(dim=0), scores.amax(dim=0))  # the mean of equal numbers may be above all
    maps = high.T.reshape(-1, *grid).cpu().numpy()
    boxed = np.zeros_like(maps)
    for of_class, maps_of_image in zip(boxed, maps, strict=True):
        for box in ndimage.find_objects(ndimage.label(maps_of_image, NEIGHBORS)[0]):
            of_class[box] = True
    return torch.from_numpy(boxed.reshape(len(maps), -1).T).to(scores.device)


def refined_scores(coarse: Tensor, attention: Tensor, grid: Grid, blocks: int, votes: int) -> Tensor:
    """P_refined: dual-masking attention refinement (DMAR).

    With A the mean attention of `blocks` blocks, P^ = (M_attn * A) P_coarse, from which M_cls is read, and for each
    class c P_refined(c) = (M_attn * A * M_cls(c)) P_coarse(c).

    Args:
        coarse: (T, K) as from `coarse_scores`.
        attention: (L - 1, T, T) as for `confident_attention`; its rows need not sum to 1, the class token has a share.
        grid: of the patches.
        blocks: how many before the last one; 0 refines nothing.
        votes: as for `confident_attention`.

    Returns:
        (T, K) in [0, 1].

    """
    if blocks == 0:
        return coarse
    weights = attention[-blocks:].mean(dim=0) * confident_attention(attention, votes)
    return weights @ (coarse * class_masks(weights @ coarse, grid))


def candidates(refined: Tensor, classes: int, share: float) -> tuple[Tensor, Tensor]:
    """Return each class's local score, and whether it is worth a second look.

    Args:
        refined: (T, K).
        classes: C, the first of the K texts.
        share: how far above the lowest of all scores, on the way to the highest, a class has to be; 1 is never reached.

    Returns:
        (C,) the highest score of a patch, and (C,) bool.

    """
    local = refined[:, :classes].amax(dim=0)
    low, high = refined.min(), refined.max()
    return local, local > low + share * (high - low)


def region(scores: Tensor, grid: Grid) -> tuple[Box, Tensor]:
    """Return where a class is looked for again: the box around its patches, and which patches in it are its own.

    Args:
        scores: (T,) of one class.
        grid: of the patches.

    Returns:
        The box, and (rows, columns) bool of the patches in it.

    """
    low, high = scores.min(), scores.max()
    mask = (scores >= low + HALF * (high - low)).reshape(grid)
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    return (top, left, bottom, right), mask[top:bottom, left:right]
