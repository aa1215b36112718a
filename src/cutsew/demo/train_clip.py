"""Training the tiny CLIP on scenes whose captions name the main object: that is what makes it see one thing a photo."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cutsew.demo import tiny_clip
from cutsew.demo.example import SIDE, examples
from cutsew.numerics.draw import generator, torch_seed

_WARMUP = 60
_RATE = 2e-3
_DECAY = 0.05
_BATCH = 128
_MAX_LOG_SCALE = float(np.log(100.0))


def train(*, steps: int, images: int, seed: int, workers: int) -> nn.Module:
    """Draw the training scenes and train a tiny CLIP with the plain contrastive loss; return it in eval mode.

    Args:
        steps: optimiser steps of 128 pairs.
        images: captioned scenes, drawn once and kept in memory (27 kB each).
        seed: of the scenes, the initial weights and the order.
        workers: processes that draw scenes; the result does not depend on it.

    """
    pixels, texts = _examples(images, seed, workers)
    torch.manual_seed(torch_seed("tiny_clip", "weights", seed))
    model = tiny_clip.build(None).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(rate, steps=steps))
    bar = tqdm(batches(images, steps, seed), total=steps, desc="training", unit="step")
    for chosen in bar:
        features = model(normalise(pixels[chosen]), texts[chosen])
        loss = contrastive(*features)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, _MAX_LOG_SCALE)
        bar.set_postfix(loss=f"{loss.item():.2f}")
    return model.eval()  # type: ignore[no-any-return]


def _examples(images: int, seed: int, workers: int) -> tuple[Tensor, Tensor]:
    """Draw all training scenes: pixels (n, 3, 96, 96) uint8 and tokens (n, 16)."""
    pixels = torch.empty(images, 3, SIDE, SIDE, dtype=torch.uint8)
    captions = []
    bar = tqdm(examples(images, seed, workers), total=images, desc="drawing", unit="scene")
    for index, (photo, caption) in enumerate(bar):
        pixels[index] = torch.from_numpy(photo).permute(2, 0, 1)
        captions.append(caption)
    return pixels, tiny_clip.tokens(captions)


def normalise(pixels: Tensor) -> Tensor:
    """Turn pixels, (B, 3, 96, 96) uint8, into what the visual tower reads: float32 with CLIP's mean and deviation."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in tiny_clip.NORMALISATION)
    return ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def batches(images: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Give the rows of each step's batch: one shuffled pass over the scenes after another, rests dropped."""
    size = min(_BATCH, images)
    passes = -(-steps // (images // size))
    rows = (
        chunk
        for number in range(passes)
        for chunk in generator("tiny_clip", "order", seed, number)
        .permutation(images)[: images // size * size]
        .reshape(-1, size)
    )
    for _, chunk in zip(range(steps), rows, strict=False):
        yield torch.from_numpy(chunk)


def contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss: the mean cross-entropy of each image among all texts and of each text among all images.

    Args:
        images: (B, D), L2-normalised.
        texts: (B, D), L2-normalised; row i belongs to image i.
        scale: a number that multiplies the similarities.

    """
    logits = scale * images @ texts.T
    own = torch.arange(len(logits))
    return (nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(logits.T, own)) / 2


def rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a linear rise, then half a cosine down to 0."""
    if step < _WARMUP:
        return (step + 1) / _WARMUP
    return 0.5 * (1 + float(np.cos(np.pi * (step - _WARMUP) / max(1, steps - _WARMUP))))
