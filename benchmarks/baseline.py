"""The published procedure, written down plainly: what a paper's code typically looks like, to measure ours against.

One process. Every pass opens every image again, takes torchvision's RandomResizedCrop, ToTensor and Normalize, and runs
the teacher in batches. Training opens and sews images as it comes to them, runs the backbone on every one, and moves Z
(N, C) with a dense AdamW. Nothing is kept. Images, weights, sizes and labels are those of a run of ours.

    python benchmarks/baseline.py cut results/demo/default --alpha 0.1
    python benchmarks/baseline.py train results/demo/default --lr 1e-3
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
import xarray
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
from torch.utils.data import DataLoader, Dataset

from cutsew.config.loading import load
from cutsew.method.adapter import Adapter
from cutsew.models import clip as clip_models
from cutsew.models.backbones import GridOfFeatures
from cutsew.runtime.lazy_imports import import_torchvision

import_torchvision()
from torchvision import transforms as T  # noqa: E402, N812

BICUBIC = T.InterpolationMode.BICUBIC
app = typer.Typer()


class Images(Dataset[Any]):
    """Opens an image each time that it is requested."""

    def __init__(self, paths: Sequence[str], transform: Any) -> None:  # noqa: ANN401
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


class SewnImages(Images):
    """Pastes salient images onto an image (Eq. 11-12, Algorithm 1); also gives the rows whose labels are blended."""

    def __init__(self, paths: Sequence[str], transform: Any, pool: Sequence[int], sew: Any) -> None:  # noqa: ANN401
        super().__init__(paths, transform)
        self.pool, self.sew = pool, sew

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        image, count, sources = Image.open(self.paths[index]).convert("RGB"), 0, [index]
        while count < self.sew.max_overlays and random.random() < self.sew.p:
            count += 1
        for other in random.sample(self.pool, count):
            overlay = Image.open(self.paths[other]).convert("RGB")
            fit = min(image.width / overlay.width, image.height / overlay.height) * self.sew.q / count**0.5
            overlay = overlay.resize(
                (round(overlay.width * fit), round(overlay.height * fit)), Image.Resampling.BICUBIC
            )
            left = random.randint(0, image.width - overlay.width)
            image.paste(overlay, (left, random.randint(0, image.height - overlay.height)))
            sources.append(other)
        padding = [index] * (1 + self.sew.max_overlays - len(sources))
        return self.transform(image), torch.tensor(sources + padding)


@app.command()
def cut(
    run: Annotated[Path, typer.Argument(help="A run's folder: whose images, teacher and classes.")],
    config: Annotated[Path, typer.Option(help="Its settings.")] = Path("config/demo-paper.yaml"),
    alpha: Annotated[
        list[float] | None, typer.Option(help="Several: the answers are kept, and fused for each.")
    ] = None,
) -> None:
    """Score whole images and M crops of each with the teacher; fuse (Eq. 3-7)."""
    settings = load(yaml.safe_load(config.read_text()))
    named = settings.teacher.open_clip
    clip = clip_models.load_clip(named, "teacher.open_clip")
    side, paths = clip.image_size, _paths(run, pd.read_parquet(run / "images.parquet"))
    texts = torch.from_numpy(xarray.open_zarr(run / "text.zarr", consolidated=False)["text"].values)
    end = [T.ToTensor(), T.Normalize(clip.preprocessing.mean, clip.preprocessing.std)]
    whole = T.Compose([T.Resize((side, side), BICUBIC), *end])
    crop = T.RandomResizedCrop(side, scale=settings.cut.area, ratio=settings.cut.aspect, interpolation=BICUBIC)
    crops = T.Compose([crop, T.RandomHorizontalFlip(), *end])
    answers = []
    for number in range(settings.cut.passes + 1):
        result = []
        for batch in DataLoader(Images(paths, crops if number else whole), settings.compute.batch_size):
            with torch.no_grad():
                images = normalize(clip.model.encode_image(batch), dim=-1)
                p = (clip.model.logit_scale.exp() * images @ texts.T).softmax(dim=-1)
            result.append(torch.logit(p.clamp(settings.score.epsilon, 1 - settings.score.epsilon)))
        answers.append(torch.cat(result))
    for value in alpha or [0.1]:
        z = torch.maximum(answers[0], torch.stack(answers[1:]).max(dim=0).values - value)
        np.save(run / f"plain-{value}.npy", z.numpy())


@app.command()
def train(
    run: Annotated[Path, typer.Argument(help="A run's folder: whose images, labels and patches.")],
    config: Annotated[Path, typer.Option(help="Its settings.")] = Path("config/demo-paper.yaml"),
    lr: Annotated[float, typer.Option(help="Of the adapter.")] = 1e-3,
) -> None:
    """Train the adapter and the labels (Eq. 11-20)."""
    settings = load(yaml.safe_load(config.read_text()))
    named, rules = settings.student.open_clip, settings.train
    clip = clip_models.load_clip(named, "student.open_clip")
    images = pd.read_parquet(run / "images.parquet")
    chosen = images["split"] == "train"
    place = {row: number for number, row in enumerate(np.flatnonzero(chosen))}
    pool = sorted({place[row] for row in pd.read_parquet(run / "patches.parquet")["row"]})
    labels = xarray.open_zarr(run / "pseudo.zarr", consolidated=False)["z"].values[chosen]
    side = (clip.image_size, clip.image_size)
    normal = T.Normalize(clip.preprocessing.mean, clip.preprocessing.std)
    transform = T.Compose([T.Resize(side, BICUBIC), T.ToTensor(), normal])
    image_rows = SewnImages(_paths(run, images[chosen]), transform, pool, settings.sew)
    tower, z = GridOfFeatures(clip.model.visual).eval().requires_grad_(False), nn.Parameter(torch.from_numpy(labels))
    width = tower(torch.zeros(1, 3, *side)).shape[1]
    adapter = Adapter(width, len(settings.classes), **settings.adapter.model_dump())
    groups = [{"params": adapter.parameters(), "lr": lr}, {"params": [z], "lr": rules.lr_estimator}]
    optimizer = torch.optim.AdamW(groups, weight_decay=rules.weight_decay)
    for _ in range(rules.epochs):
        for batch, sources in DataLoader(image_rows, rules.batch_size, shuffle=True):
            with torch.no_grad():
                features: Tensor = tower(batch)
            p, blended = adapter(features), z[sources].max(dim=1).values
            m = binary_cross_entropy_with_logits(p, blended.detach().sigmoid())
            e = binary_cross_entropy_with_logits(blended, p.detach().sigmoid())
            optimizer.zero_grad()
            (m + rules.em_weight * e).backward()
            optimizer.step()
    torch.save({"adapter": adapter.state_dict(), "z": z.detach()}, run / "plain.pt")


def _paths(run: Path, images: pd.DataFrame) -> list[str]:
    """Name images from wherever this runs: they are named from the folder that holds results/."""
    return [str(run.resolve().parents[2] / path) for path in images["path"]]


if __name__ == "__main__":
    app()
