"""A teacher that needs no model hub: a convex combination of class-name embeddings (ConSE; Norouzi et al., ICLR 2014).

An ImageNet classifier looks at a view; the embedding of the view is the sum, over its T likeliest ImageNet classes, of
probability times the sentence embedding of that class's text; a class to look for is embedded by the same sentence
encoder. Both models come from registry packages (extra `offline`).

It needs no label of the user's images, but its image encoder was trained on ImageNet's labels, so it is not
label-free in the sense that CLIP is; and CLIP is far better wherever its weights can be had.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from cutsew.config.cutting import WindowsConfig
from cutsew.config.networks import ConseTeacherConfig as Settings
from cutsew.method.windows import Pool, pool_windows
from cutsew.models.checkpoints import weights_digest
from cutsew.models.image_encoder import Normalize, count_gflop, image_encoder
from cutsew.models.offline_models import IMAGE_SIZE, WIDTH, Sentences, efficientnet_lite0
from cutsew.models.preprocessing import EFFICIENTNET
from cutsew.models.teacher_grid import Grid, WindowEmbedder, class_maps
from cutsew.runtime.batching import run_batch_invariant

SETTING = "teacher.kind: conse"


def mix(probabilities: Tensor, texts: Tensor, top: int) -> Tensor:
    """Mix the texts of the likeliest classes by their probability.

    Args:
        probabilities: (B, K) of an image classifier.
        texts: (K, D) embeddings of its classes' texts.
        top: T, how many classes are mixed; K where it is larger.

    Returns:
        (B, D), L2-normalized.

    """
    likeliest, classes = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    return normalize((likeliest.unsqueeze(-1) * texts[classes]).sum(dim=1), dim=-1)


class _Windows(nn.Module):
    """The classifier's answers to all windows of an image: (B, 3, S, S) uint8 to (B, M, 1000) logits."""

    def __init__(self, classifier: nn.Module, pixels: nn.Module, windows: WindowEmbedder) -> None:
        super().__init__()
        self.classifier, self.pixels, self._windows = classifier, pixels, windows

    def forward(self, images: Tensor) -> Tensor:
        """Classify the mean of each window of the last grid, as the classifier does with a whole grid."""
        features: Tensor = self.classifier.forward_features(self.pixels(images))  # type: ignore[operator]
        head: Pool = self.classifier.forward_head  # type: ignore[assignment]
        return pool_windows(features, head, self._windows.size, self._windows.count, whole=self._windows.whole)


class ConseTeacher:
    """EfficientNet-Lite0 and all-MiniLM-L6-v2, the latter always in float32. See `models.teachers.Teacher`."""

    def __init__(self, settings: Settings, device: str) -> None:
        classifier = efficientnet_lite0(SETTING)
        self._settings = settings
        self.device = device
        self.image_size = IMAGE_SIZE
        self.preprocessing = EFFICIENTNET
        self.logit_scale = settings.conse.scale
        self.logit_bias: float | None = None
        self.width = WIDTH
        self._top = settings.conse.top
        self._sentences = Sentences(SETTING, device)
        self.weights_digest = weights_digest(classifier, self._sentences.bert)
        self._classifier = classifier.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._pixels = Normalize(EFFICIENTNET.mean, EFFICIENTNET.std).to(device)
        self._encoder = nn.Sequential(self._pixels, self._classifier)
        self._classify = image_encoder(self._encoder, IMAGE_SIZE, settings, device)

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed (B, 3, 224, 224) uint8 views: (B, 384) float32 on the CPU, L2-normalized."""
        return self.at_side(self.image_size)(images).cpu()

    def gflop(self) -> float:
        """Count the GFLOP of one view; a multiply-add counts as two."""
        return count_gflop(self._encoder, self.image_size, self.device)

    def at_side(self, side: int) -> Callable[[Tensor], Tensor]:
        """Return what embeds views of this side; see `models.teachers.Teacher`."""
        classify, texts = self._classify, self._imagenet
        if side != self.image_size:
            classify = image_encoder(self._encoder, side, self._settings, self.device)
        return lambda images: run_batch_invariant(
            lambda part: mix(classify(part).softmax(dim=-1), texts, self._top), images, self.device
        )

    def maps(self, images: Tensor, texts: Tensor, classes: Tensor) -> Tensor:
        """Show where in each view its class is seen: (B, 7, 7) float32 in [0, 1] on the CPU."""
        imagenet, grid = self._imagenet, Grid(self._classifier.get_submodule("bn2"))

        def embed(views: Tensor) -> Tensor:
            return mix(self._classifier(self._pixels(views)).softmax(dim=-1), imagenet, self._top)

        return class_maps(embed, grid, images, texts, classes, self.device)

    def windows(self, settings: WindowsConfig) -> WindowEmbedder:
        """Return what embeds the windows of an image's last grid; see `models.teachers.Teacher`."""
        windows, texts = WindowEmbedder(settings, self.image_size), self._imagenet
        tower = _Windows(self._classifier, self._pixels, windows)
        classify = image_encoder(tower, windows.image_size, self._settings, self.device)

        def embed(images: Tensor) -> Tensor:
            answers = classify(images)
            mixed = mix(answers.flatten(0, 1).softmax(dim=-1), texts, self._top)
            return mixed.reshape(*answers.shape[:2], -1)

        return windows.run_with(embed, self.device)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed n texts: (n, 384) float32 on the CPU, L2-normalized."""
        return self._sentences.embed(texts)

    @cached_property
    def _imagenet(self) -> Tensor:
        """Embed the 1,000 ImageNet classes as lemmas and definition, (1000, 384); first lemmas alone cost 10 points."""
        from timm.data import ImageNetInfo  # type: ignore[attr-defined]  # noqa: PLC0415

        info = ImageNetInfo()
        described = [info.index_to_description(index, detailed=True) for index in range(1000)]
        return self._sentences.embed(described).to(self.device)
