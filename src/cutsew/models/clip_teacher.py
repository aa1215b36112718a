"""Any open_clip model as the teacher."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from cutsew.config.cutting import WindowsConfig
from cutsew.config.networks import OpenClipTeacherConfig as Settings
from cutsew.models import clip as clip_models
from cutsew.models.checkpoints import weights_digest
from cutsew.models.clip import at_side
from cutsew.models.image_encoder import Normalize, count_gflop, image_encoder
from cutsew.models.teacher_grid import ClipWindows, WindowEmbedder, class_maps, last_grid
from cutsew.runtime.batching import run_batch_invariant


class _Images(nn.Module):
    """The image tower behind its normalization."""

    def __init__(self, model: nn.Module, pixels: Normalize) -> None:
        super().__init__()
        self.model, self.pixels = model, pixels

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) uint8 to (B, D)."""
        embedded: Tensor = self.model.encode_image(self.pixels(images))  # type: ignore[operator]
        return embedded


class OpenClipTeacher:
    """An open_clip model: the text tower always computes in float32. See `models.teachers.Teacher`."""

    def __init__(self, settings: Settings, device: str) -> None:
        named, self._settings = settings.open_clip, settings
        clip = clip_models.load_clip(named, "teacher.open_clip")
        self.device = device
        self.image_size = clip.image_size
        self.preprocessing = clip.preprocessing
        self.logit_scale = math.exp(clip.model.get_parameter("logit_scale").item())
        self.logit_bias = clip.logit_bias
        self.weights_digest = weights_digest(clip.model)
        self._model: Any = clip.model  # open_clip's models share no type
        self.visual.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._pixels = Normalize(clip.preprocessing.mean, clip.preprocessing.std).to(device)
        self._tokenizer = clip_models.tokenizer(named, "teacher.open_clip")
        self._encoder = _Images(self._model, self._pixels)
        self._encode_image = image_encoder(self._encoder, self.image_size, settings, device)
        self.width = clip.width

    @property
    def visual(self) -> torch.nn.Module:
        """The image tower, on the device, which takes what `pixels` gives."""
        tower: torch.nn.Module = self._model.get_submodule("visual")
        return tower

    @property
    def pixels(self) -> Normalize:
        """The normalization of images, on the device."""
        return self._pixels

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed (B, 3, S, S) uint8 views: (B, D) float32 on the CPU, L2-normalized."""
        return self.at_side(self.image_size)(images).cpu()

    def gflop(self) -> float:
        """Count the GFLOP of one view; a multiply-add counts as two."""
        return count_gflop(self._encoder, self.image_size, self.device)

    def at_side(self, side: int) -> Callable[[Tensor], Tensor]:
        """Return what embeds views of this side; see `models.teachers.Teacher`."""
        encode = self._encode_image
        if side != self.image_size:
            tower = _Images(at_side(self._model, side, self._settings.open_clip.model), self._pixels)
            encode = image_encoder(tower, side, self._settings, self.device)
        return lambda images: run_batch_invariant(lambda part: normalize(encode(part), dim=-1), images, self.device)

    def maps(self, images: Tensor, texts: Tensor, classes: Tensor) -> Tensor:
        """Show where in each view its class is seen: (B, H, W) float32 in [0, 1] on the CPU.

        Raises:
            UserError: the tower is of a kind whose grid of features is not known.

        """
        return class_maps(self._embed_plainly, last_grid(self._model.visual), images, texts, classes, self.device)

    def windows(self, settings: WindowsConfig) -> WindowEmbedder:
        """Return what embeds the windows of an image's last grid; see `models.teachers.Teacher`."""
        windows = WindowEmbedder(settings, self.image_size)
        tower = ClipWindows(self._model.get_submodule("visual"), self._pixels, windows)
        encode = image_encoder(tower, windows.image_size, self._settings, self.device)
        return windows.run_with(lambda images: normalize(encode(images), dim=-1), self.device)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed n texts: (n, D) float32 on the CPU, L2-normalized."""
        self._model.to(self.device)  # the text tower too, which image embeddings do without
        return run_batch_invariant(self._embed_tokens, self._tokenizer(texts), self.device).cpu()

    def _embed_plainly(self, images: Tensor) -> Tensor:
        return normalize(self._encoder(images), dim=-1)

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        return normalize(self._model.encode_text(tokens), dim=-1)
