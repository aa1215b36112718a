"""TagCLIP (Lin et al., AAAI 2024) on a CLIP vision transformer.

- Looking into a CLIP vision transformer: what each patch shows, and which patches attend to which.
- TagCLIP (Lin et al., AAAI 2024): a teacher scores the patches of an image, and then each class's region.

Its authors' boxes lose their last row and column of patches, and one box without area ends the second look for all
classes left; both are taken for slips and not followed here. Position embeddings are resized bicubically, as everywhere
in this package, where theirs are bilinear.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, normalize

from cutsew.config.method import TagClipConfig as Settings
from cutsew.errors import UserError, no_patches
from cutsew.method.tagclip import candidates, coarse_scores, refined_scores, region
from cutsew.models.clip import resize_position_embedding
from cutsew.models.clip_teacher import OpenClipTeacher
from cutsew.runtime.device import autocast_factory


class PatchTower:
    """The image tower of an open_clip teacher, block by block.

    Args:
        teacher: whose tower it is.
        model: its name, for messages.
        precision: one of `Precision`; results are float32.

    Attributes:
        patch: side of a patch, in pixels.
        side: of the square view that is encoded with masks, in pixels.
        blocks: L.

    Raises:
        UserError: the tower is no plain vision transformer that answers by its class token.

    """

    def __init__(self, teacher: OpenClipTeacher, model: str, precision: str) -> None:
        visual: Any = teacher.visual
        if not _is_plain(visual):
            raise UserError(no_patches(model, f"a {type(getattr(visual, 'trunk', visual)).__name__}"))
        self.patch = int(visual.patch_size[0])
        self.side = teacher.image_size
        self.blocks = len(visual.transformer.resblocks)
        self._visual, self._pixels = visual, teacher.pixels
        self._computing = autocast_factory(precision, teacher.device, "teacher")

    def encode_patches(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Encode each patch of an image, with the last block's attention replaced by its value path.

        Args:
            image: (3, H * P, W * P) uint8, P = `patch`, on the teacher's device.

        Returns:
            (T, D) features of the T = H * W patches, L2-normalized, and (L - 1, T, T) what they attend to in the
            blocks before the last, over heads averaged.

        """
        *before, last = self._visual.transformer.resblocks
        seen = []
        with self._computing():
            tokens = self._tokens(self._pixels(image[None]))
            for block in before:
                tokens, attention = _attend(block, tokens, weights=True)
                seen.append(attention[0, 1:, 1:].float())
            features = self._project(_values_alone(last, tokens)[0, 1:])
        return normalize(features.float(), dim=-1), torch.stack(seen)

    def encode_masked(self, views: Tensor, masks: Tensor) -> Tensor:
        """Embed views, the class token attending to some patches only; patches attend as always.

        Args:
            views: (B, 3, S, S) pixels from 0 to 255, S = `side`, on the teacher's device.
            masks: (B, T) bool, patches that the class token of each view may attend to.

        Returns:
            (B, D) features of the class tokens, L2-normalized.

        """
        blocks = self._visual.transformer.resblocks
        views_, patches = masks.shape
        hidden = views.new_zeros(views_, patches + 1, patches + 1, dtype=torch.float32)
        hidden[:, 0, 1:].masked_fill_(~masks, -torch.inf)
        hidden = hidden.repeat_interleave(blocks[0].attn.num_heads, dim=0)
        with self._computing():
            tokens = self._tokens(self._pixels(views))
            for block in blocks:
                tokens, _ = _attend(block, tokens, hidden)
            features = self._project(tokens[:, 0])
        return normalize(features.float(), dim=-1)

    def _tokens(self, pixels: Tensor) -> Tensor:
        """Cut normalized (B, 3, height, width) pixels into tokens (B, 1 + T, K), the class token first."""
        visual = self._visual
        grid = visual.conv1(pixels)
        cells = grid.flatten(2).transpose(1, 2)
        token = visual.class_embedding.to(cells.dtype).expand(len(cells), 1, -1)
        places = resize_position_embedding(visual.positional_embedding, (grid.shape[2], grid.shape[3]))
        tokens: Tensor = visual.ln_pre(torch.cat([token, cells], dim=1) + places.to(cells.dtype))
        return tokens

    def _project(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self._visual.ln_post(tokens) @ self._visual.proj
        return projected


def _is_plain(visual: Any) -> bool:  # noqa: ANN401 - open_clip's towers share no type
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", [])
    plain = [type(getattr(block, "attn", None)) is nn.MultiheadAttention and block.attn.batch_first for block in blocks]
    answers_by_token = getattr(visual, "attn_pool", None) is None and getattr(visual, "pool_type", "tok") == "tok"
    return len(plain) > 1 and all(plain) and answers_by_token


def _attend(block: Any, tokens: Tensor, hidden: Tensor | None = None, *, weights: bool = False) -> tuple[Tensor, Any]:  # noqa: ANN401
    """Run one block; return its tokens, and the attention (B, 1 + T, 1 + T) if it is requested."""
    inside = block.ln_1(tokens)
    attended, attention = block.attn(inside, inside, inside, need_weights=weights, attn_mask=hidden)
    return _after_attention(block, tokens, attended), attention


def _values_alone(block: Any, tokens: Tensor) -> Tensor:  # noqa: ANN401
    """Run one block in which each token attends to itself alone."""
    attn = block.attn
    values = linear(block.ln_1(tokens), attn.in_proj_weight[-attn.embed_dim :], attn.in_proj_bias[-attn.embed_dim :])
    return _after_attention(block, tokens, attn.out_proj(values))


def _after_attention(block: Any, tokens: Tensor, attended: Tensor) -> Tensor:  # noqa: ANN401
    tokens = tokens + block.ls_1(attended)
    out: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return out


AT_ONCE = 16
"""Regions of an image in one call, whatever the batch: the last bits of an answer may depend on it."""


class TagClip:
    """Scores of one image after another.

    Args:
        tower: that is run.
        texts: (K, D) embeddings, L2-normalized: the C classes, and behind them what else fills images; with `sizes`
            a row per wording.
        classes: C.
        scale: logit scale.
        settings: of the method.
        device: cpu, cuda or mps.
        sizes: (K,) wordings of each text, whose best one counts; None for one each.

    Raises:
        UserError: the tower has fewer blocks than the settings require.

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
        for name, requested, available in (
            ("blocks", settings.blocks, tower.blocks - 1),
            ("votes", settings.votes, tower.blocks),
        ):
            if settings.blocks and requested > available:
                raise UserError(f"score.tagclip.{name}: {requested} of the {available} blocks; lower it")
        self._tower, self._settings = tower, settings
        self._texts, self._classes, self._scale, self._sizes = texts.to(device), classes, scale, sizes

    def __call__(self, image: Tensor) -> Tensor:
        """Score one image.

        Args:
            image: (3, H * P, W * P) uint8 of whole patches, on the device.

        Returns:
            (2, C) float32: each class's best patch after refinement, in [0, 1], and its probability in the second
            look; NaN where there was none.

        """
        patches, attention = self._tower.encode_patches(image)
        grid = (image.shape[1] // self._tower.patch, image.shape[2] // self._tower.patch)
        coarse = coarse_scores(patches, self._texts, self._scale, self._sizes)
        refined = refined_scores(coarse, attention, grid, self._settings.blocks, self._settings.votes)
        local, chosen = candidates(refined, self._classes, self._settings.candidates)
        again = torch.full_like(local, torch.nan)
        rows = chosen.nonzero()[:, 0]
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            regions = [self._cut_out(image, *region(refined[:, c], grid)) for c in part.tolist()]
            views, masks = (torch.stack(each) for each in zip(*regions, strict=True))
            answers = coarse_scores(self._tower.encode_masked(views, masks), self._texts, self._scale, self._sizes)
            again[part] = answers[torch.arange(len(part), device=part.device), part]
        return torch.stack([local, again])

    def _cut_out(self, image: Tensor, box: tuple[int, int, int, int], mask: Tensor) -> tuple[Tensor, Tensor]:
        """Resize a region to the tower's square view, and the patches in it that are the class's own to its patches."""
        side, patch = self._tower.side, self._tower.patch
        top, left, bottom, right = (edge * patch for edge in box)
        pixels = image[None, :, top:bottom, left:right].float()
        view = interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)[0]
        resized = interpolate(mask[None, None].float(), size=(side // patch, side // patch), mode="nearest")
        return view, resized.flatten() > 0
