"""Any open_clip model as the teacher."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cutsew import clip_models
from cutsew.checkpoints import weights_digest
from cutsew.config.teacher import OpenClipTeacher as Settings
from cutsew.pixels import Pixels
from cutsew.steady import steadily


class OpenClipTeacher:
    """An open_clip model: both towers, in float32. See `teachers.base.Teacher`."""

    def __init__(self, settings: Settings, device: str) -> None:
        clip = clip_models.build(settings.model, settings.pretrained, settings.image_size, "teacher.open_clip")
        self.device = device
        self.image_size = clip.image_size
        self.logit_scale = math.exp(clip.model.get_parameter("logit_scale").item())
        self.weights_digest = weights_digest(clip.model)
        self._model = clip.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._pixels = Pixels(clip.mean, clip.std).to(device)
        self._tokenizer = clip_models.tokenizer(settings.model)
        self.width = self.embed_texts(["a photo"]).shape[1]

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed (B, 3, S, S) uint8 views: (B, D) float32 on the CPU, L2-normalised."""
        return steadily(self._embed_images, images, self.device).cpu()

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed n texts: (n, D) float32 on the CPU, L2-normalised."""
        return steadily(self._embed_tokens, self._tokenizer(texts), self.device).cpu()

    def _embed_images(self, images: Tensor) -> Tensor:
        return normalize(self._model.encode_image(self._pixels(images)), dim=-1)

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        return normalize(self._model.encode_text(tokens), dim=-1)
