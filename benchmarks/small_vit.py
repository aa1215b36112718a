r"""Distill a small ViT CLIP from the demo's tiny ResNet CLIP, to measure layouts of a ViT without a model hub.

It keeps the ResNet's text tower and scale. Ten minutes of one core. The folder that it writes is a teacher of the demo:

    python benchmarks/small_vit.py small-vit
    snakemake --cores all sweep --config sweep=vit/layouts 'dataset={name: demo-vit}' \
        'teacher={open_clip: {model: "local-dir:small-vit", pretrained: null, image_size: 96}}'
"""

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize
from tqdm import tqdm

from cutsew.demo import tiny_clip
from cutsew.demo.scenes import all_captions, caption, scene
from cutsew.demo.tiny_clip import normalize_images, rate
from cutsew.demo.world import AREA, OTHERS, SECOND_NAMED
from cutsew.method.crops import crop_boxes, cut
from cutsew.method.random import keyed_rng
from cutsew.runtime.processes import exit_with_parent

import open_clip  # isort: skip  # after tiny_clip, which imports torchvision safely

SIDE, VIEWS, BATCH, SEED = 96, 4, 64, 21
VISION = {"image_size": SIDE, "patch_size": 12, "width": 128, "layers": 6, "head_width": 32, "mlp_ratio": 4.0}


def example(index: int) -> tuple[npt.NDArray[np.uint8], str]:
    """Draw one scene; return (VIEWS, 3, 96, 96) random views of it, and its caption."""
    rng = keyed_rng("small_vit", SEED, index)
    image, things = scene(rng, OTHERS)
    names = [thing.name for thing in things]
    boxes = crop_boxes(
        "view",
        *image.size,
        range(VIEWS * index, VIEWS * (index + 1)),
        seed=SEED,
        area=AREA,
        aspect=(3 / 4, 4 / 3),
        flip=0,
    )
    views = np.stack([cut(image, box, SIDE) for box in boxes])
    return views, caption(names[:2] if rng.uniform() < SECOND_NAMED else names[:1])


def examples(count: int, workers: int) -> tuple[Tensor, list[str]]:
    """Draw all scenes: (count * VIEWS, 3, 96, 96) uint8, and the captions of their views."""
    pixels = torch.empty(count, VIEWS, 3, SIDE, SIDE, dtype=torch.uint8)
    captions: list[str] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=exit_with_parent) as pool:
        drawn = pool.map(example, range(count), chunksize=50)
        for index, (views, text) in enumerate(tqdm(drawn, total=count, desc="drawing", unit="scene")):
            pixels[index] = torch.from_numpy(views)
            captions += [text] * VIEWS
    return pixels.flatten(0, 1), captions


def batches(count: int, steps: int) -> Iterator[Tensor]:
    """Give the rows of each step's batch."""
    for step in range(steps):
        yield torch.from_numpy(keyed_rng("small_vit", "batch", SEED, step).permutation(count)[:BATCH])


def distill(pixels: Tensor, captions: list[str], steps: int) -> nn.Module:
    """Train the ViT on the ResNet's embeddings and on its softmax over all captions."""
    teacher = tiny_clip.build().requires_grad_(False)
    texts = sorted(set(all_captions()) | set(captions))
    local_values = torch.tensor([texts.index(text) for text in captions])
    with torch.no_grad():
        embedded = torch.cat(
            [
                teacher.encode_text(tiny_clip.tokens(texts[i : i + 256]), normalize=True)
                for i in range(0, len(texts), 256)
            ]
        )
        expected = torch.cat(
            [
                teacher.encode_image(normalize_images(part), normalize=True)
                for part in tqdm(pixels.split(64), desc="teacher")
            ]
        )
    scale = teacher.logit_scale.exp()
    torch.manual_seed(SEED)
    described = json.loads(tiny_clip.CONFIG.read_text())
    student = open_clip.CLIP(**{**described, "vision_cfg": VISION})
    student.load_state_dict(
        {k: v for k, v in teacher.state_dict().items() if not k.startswith("visual.")}, strict=False
    )
    visual = student.visual.train()
    optimizer = torch.optim.AdamW(visual.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate, steps=steps))
    bar = tqdm(batches(len(pixels), steps), total=steps, desc="training", unit="step")
    for step, rows in enumerate(bar):
        views = pixels[rows]
        flipped = torch.from_numpy(keyed_rng("small_vit", "flip", SEED, step).random(len(rows)) < 0.5)
        views[flipped] = views[flipped].flip(3)
        result = normalize(visual(normalize_images(views)), dim=-1)
        logits = log_softmax(scale * result @ embedded.T, dim=-1)
        target = log_softmax(scale * expected[rows] @ embedded.T, dim=-1)
        cosine = (result * expected[rows]).sum(dim=-1).mean()
        loss = 2 * (1 - cosine) + kl_div(logits, target, log_target=True, reduction="batchmean")
        loss = loss + 0.5 * cross_entropy(logits, local_values[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(cosine=f"{cosine.item():.3f}")
    return student.eval()


def main() -> None:
    """Write the folder of the distilled model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=4500)
    parser.add_argument("--steps", type=int, default=1040)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = distill(*examples(args.scenes, args.threads), args.steps)
    args.folder.mkdir(parents=True, exist_ok=True)
    mean, std = tiny_clip.NORMALIZATION
    described = {**json.loads(tiny_clip.CONFIG.read_text()), "vision_cfg": VISION}
    images = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "squash"}
    (args.folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": described, "preprocess_cfg": images}))
    save_file(
        {
            name: value.half().contiguous() if value.is_floating_point() else value
            for name, value in model.state_dict().items()
        },
        args.folder / "open_clip_model.safetensors",
    )


if __name__ == "__main__":
    main()
