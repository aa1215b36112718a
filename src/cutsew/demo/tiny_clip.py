"""The demo's tiny CLIP: the model, and its training.

- The tiny CLIP: open_clip's own model class at a size that two cores train in six minutes.
- Training the tiny CLIP on scenes whose captions name the main object: that is what makes it see one thing an image.

Its weights ship packed: float16, and of the token embedding only the rows that captions use. `state_dict` expands them.
Images are normalized with CLIP's standard mean and standard deviation (`open_clip.OPENAI_DATASET_MEAN` and `_STD`).
"""

import json
import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from cutsew.demo.scenes import all_captions
from cutsew.demo.world import SIDE, examples
from cutsew.errors import UserError
from cutsew.method.random import keyed_rng, torch_seed
from cutsew.runtime.lazy_imports import import_torchvision
from cutsew.storage.atomic import atomic_path

import_torchvision()
import open_clip  # noqa: E402

MODEL = "cutsew-tiny"
"""The name under which open_clip knows the model once `register` has run."""

SIGMOID = "cutsew-tiny-sigmoid"
"""The same towers with a logit bias, as SigLIP has one: a teacher that answers by a sigmoid and needs no model hub."""

SIGMOID_SCALE, SIGMOID_BIAS = 11.4352, -11.6407
"""Of SIGMOID with the shipped weights: the two numbers of least sigmoid loss over 2,048 captioned scenes (seed 5) and
all their captions, the towers being left as they are."""

CONFIG = Path(__file__).with_name(f"{MODEL}.json")
SHIPPED = Path(__file__).with_name(f"{MODEL}.safetensors")
"""The weights that come with the package; `cutsew tiny_clip` with its defaults makes them."""

NORMALIZATION = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
"""Mean and standard deviation of the three channels, for pixels in [0, 1]."""

_EMBEDDING = "token_embedding.weight"
_ROWS = "token_embedding.rows"


def register() -> None:
    """Make open_clip know `cutsew-tiny` and `cutsew-tiny-sigmoid`; calling it again changes nothing."""
    for model in (MODEL, SIGMOID):
        if model not in open_clip.list_models():
            open_clip.add_model_config(CONFIG.with_name(f"{model}.json"))


def build(path: Path | None = SHIPPED) -> nn.Module:
    """Return an open_clip `CLIP` in eval mode, float32, on the CPU.

    Args:
        path: packed weights; None for fresh ones, drawn from torch's global generator.

    Raises:
        UserError: the file is no packed tiny CLIP.

    """
    model: nn.Module = open_clip.CLIP(**json.loads(CONFIG.read_text()))
    if path is not None:
        model.load_state_dict(state_dict(path))
    return model.eval()


def tokens(texts: list[str]) -> Tensor:
    """Return the tokens of texts, (n, 16) int64, padded with zeros."""
    token_ids: Tensor = _tokenizer()(texts)
    return token_ids


def pack(model: nn.Module, path: Path) -> None:
    """Write a model's weights as the shipped file, atomically.

    Floating-point tensors become float16, except single numbers; of the token embedding only the rows that captions
    use are kept, with their indices.
    """
    rows = torch.unique(tokens(all_captions()))
    packed = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    packed[_EMBEDDING] = packed[_EMBEDDING][rows]
    packed = {name: (value.half() if _is_big_float(value) else value).contiguous() for name, value in packed.items()}
    packed[_ROWS] = rows.to(torch.int32)
    with atomic_path(path) as draft:
        draft.write_bytes(save(packed, metadata={"model": MODEL}))


def state_dict(path: Path = SHIPPED) -> dict[str, Tensor]:
    """Expand packed weights to the model's full float32 state dict; rows of unused tokens are zero.

    Raises:
        UserError: the file is absent or no packed tiny CLIP.

    """
    try:
        with safe_open(path, framework="pt") as file:
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        rows, kept = packed.pop(_ROWS).long(), packed[_EMBEDDING].float()
    except FileNotFoundError:
        raise UserError(f"{path}: not there; make it with: cutsew tiny_clip {path}") from None
    except (SafetensorError, KeyError):
        raise UserError(f"{path}: not a packed tiny CLIP; make one with: cutsew tiny_clip {path}") from None
    embedding = torch.zeros(json.loads(CONFIG.read_text())["text_cfg"]["vocab_size"], kept.shape[1])
    embedding[rows] = kept
    expanded = {name: value.float() if value.is_floating_point() else value for name, value in packed.items()}
    return {**expanded, _EMBEDDING: embedding}


def sigmoid_state_dict() -> dict[str, Tensor]:
    """Return the state dict of `cutsew-tiny-sigmoid`: the shipped weights with its own scale and bias."""
    return {
        **state_dict(),
        "logit_scale": torch.tensor(math.log(SIGMOID_SCALE)),
        "logit_bias": torch.tensor(SIGMOID_BIAS),
    }


@cache
def _tokenizer() -> Callable[[list[str]], Tensor]:
    register()
    return open_clip.get_tokenizer(MODEL)  # type: ignore[no-any-return]


def _is_big_float(value: Tensor) -> bool:
    return value.is_floating_point() and value.ndim > 0


_WARMUP = 60
_RATE = 2e-3
_DECAY = 0.05
_BATCH = 128
_MAX_LOG_SCALE = float(np.log(100.0))


def train(*, steps: int, images: int, seed: int, workers: int) -> nn.Module:
    """Draw the training scenes and train a tiny CLIP with the plain contrastive loss; return it in eval mode.

    Args:
        steps: optimizer steps of 128 pairs.
        images: captioned scenes, drawn once and kept in memory (27 kB each).
        seed: of the scenes, the initial weights and the order.
        workers: processes that draw scenes; the result does not depend on it.

    """
    pixels, texts = _examples(images, seed, workers)
    torch.manual_seed(torch_seed("tiny_clip", "weights", seed))
    model = build(None).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate, steps=steps))
    bar = tqdm(batches(images, steps, seed), total=steps, desc="training", unit="step")
    for chosen in bar:
        features = model(normalize_images(pixels[chosen]), texts[chosen])
        loss = contrastive(*features)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
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
    for index, (image, caption) in enumerate(bar):
        pixels[index] = torch.from_numpy(image).permute(2, 0, 1)
        captions.append(caption)
    return pixels, tokens(captions)


def normalize_images(pixels: Tensor) -> Tensor:
    """Turn pixels, (B, 3, 96, 96) uint8, into what the visual tower reads: float32 with CLIP's mean and deviation."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in NORMALIZATION)
    return ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def batches(images: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Give the rows of each step's batch: one shuffled pass over the scenes after another, rests dropped."""
    size = min(_BATCH, images)
    passes = -(-steps // (images // size))
    rows = (
        chunk
        for number in range(passes)
        for chunk in keyed_rng("tiny_clip", "order", seed, number)
        .permutation(images)[: images // size * size]
        .reshape(-1, size)
    )
    for _, chunk in zip(range(steps), rows, strict=False):
        yield torch.from_numpy(chunk)


def contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss: the mean cross-entropy of each image among all texts and of each text among all images.

    Args:
        images: (B, D), L2-normalized.
        texts: (B, D), L2-normalized; row i belongs to image i.
        scale: a number that multiplies the similarities.

    """
    logits = scale * images @ texts.T
    targets = torch.arange(len(logits))
    return (nn.functional.cross_entropy(logits, targets) + nn.functional.cross_entropy(logits.T, targets)) / 2


def rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a linear rise, then half a cosine down to 0."""
    if step < _WARMUP:
        return (step + 1) / _WARMUP
    return 0.5 * (1 + float(np.cos(np.pi * (step - _WARMUP) / max(1, steps - _WARMUP))))
