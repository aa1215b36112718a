"""TagCLIP (Lin et al., AAAI 2024): a teacher asked about the patches of a photo, and again about each class's region.

Its authors' boxes lose their last row and column of patches, and one box without area ends the second look for all
classes left; both are taken for slips and not followed here. Position embeddings are resized bicubically, as everywhere
in this package, where theirs are bilinear.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cutsew.config.method import TagClip as Settings
from cutsew.errors import UserError
from cutsew.numerics.tagclip import candidates, coarse_scores, refined_scores, region
from cutsew.teachers.patches import PatchTower

AT_ONCE = 16
"""Regions of a photo in one call, whatever the batch: the last bits of an answer may depend on it."""


class TagClip:
    """Scores of one photo after another.

    Args:
        tower: that is asked.
        texts: (K, D) embeddings, L2-normalised: the C classes, and behind them what else fills photos; with `sizes`
            a row per wording.
        classes: C.
        scale: logit scale.
        settings: of the method.
        device: cpu or cuda.
        sizes: (K,) wordings of each text, whose best one counts; None for one each.

    Raises:
        UserError: the tower has fewer blocks than the settings ask for.

    """

    def __init__(
        self,
        tower: PatchTower,
        texts: Tensor,
        classes: int,
        scale: float,
        settings: Settings,
        device: str,
        sizes: Sequence[int] | None = None,
    ) -> None:
        for name, wanted, there in (
            ("blocks", settings.blocks, tower.blocks - 1),
            ("votes", settings.votes, tower.blocks),
        ):
            if settings.blocks and wanted > there:
                raise UserError(f"score.tagclip.{name}: {wanted} of the {there} blocks that there are; lower it")
        self._tower, self._settings = tower, settings
        self._texts, self._classes, self._scale, self._sizes = texts.to(device), classes, scale, sizes

    def __call__(self, photo: Tensor) -> Tensor:
        """Score one photo.

        Args:
            photo: (3, H * P, W * P) uint8 of whole patches, on the device.

        Returns:
            (2, C) float32: each class's best patch after refinement, in [0, 1], and its probability in the second
            look; NaN where there was none.

        """
        patches, attention = self._tower.look(photo)
        grid = (photo.shape[1] // self._tower.patch, photo.shape[2] // self._tower.patch)
        coarse = coarse_scores(patches, self._texts, self._scale, self._sizes)
        refined = refined_scores(coarse, attention, grid, self._settings.blocks, self._settings.votes)
        local, chosen = candidates(refined, self._classes, self._settings.candidates)
        again = torch.full_like(local, torch.nan)
        rows = chosen.nonzero()[:, 0]
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            asked = [self._cut_out(photo, *region(refined[:, c], grid)) for c in part.tolist()]
            views, mine = (torch.stack(each) for each in zip(*asked, strict=True))
            answers = coarse_scores(self._tower.ask(views, mine), self._texts, self._scale, self._sizes)
            again[part] = answers[torch.arange(len(part), device=part.device), part]
        return torch.stack([local, again])

    def _cut_out(self, photo: Tensor, box: tuple[int, int, int, int], mine: Tensor) -> tuple[Tensor, Tensor]:
        """Resize a region to the tower's square view, and the patches in it that are the class's own to its patches."""
        side, patch = self._tower.side, self._tower.patch
        top, left, bottom, right = (edge * patch for edge in box)
        pixels = photo[None, :, top:bottom, left:right].float()
        view = interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)[0]
        kept = interpolate(mine[None, None].float(), size=(side // patch, side // patch), mode="nearest")
        return view, kept.flatten() > 0
