"""A tiny world for the tests of train and predict: random images, labels, patches and a backbone of one convolution."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from manifests import make_manifest_of
from PIL import Image
from torch import nn

from cutsew.config.method import SewConfig, SoftmaxScoringConfig, SqrtCorrectionConfig
from cutsew.config.networks import OpenClipStudentConfig
from cutsew.config.training import AdapterConfig, AdapterTrainingConfig
from cutsew.models.backbones import Backbone
from cutsew.models.preprocessing import Preprocessing
from cutsew.stages import train as stage
from cutsew.storage.zarr_layout import label_spec
from cutsew.storage.zarr_writer import write_group

torch.set_num_threads(1)  # the models here are too small to share out

CLASSES = ["ant", "bee", "cat"]
TRAIN, TEST = 11, 3


def backbone(settings, device="cpu"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = nn.Sequential(nn.Conv2d(3, 12, 4, stride=4), nn.ReLU())
    return Backbone(tower, Preprocessing((0.5,) * 3, (0.25,) * 3, "bicubic"), 16, settings, device)


def make_world(folder: Path, test: int = TEST) -> Path:
    """Write images.parquet, fused.zarr and patches.parquet; every third image or so is held out.

    The images are BMP, whose bytes, and so digests and draws, are the same with every version of Pillow and zlib.
    """
    rng = np.random.default_rng(5)
    held_out = set(range(1, 1 + 3 * test, 3))
    paths = [folder / f"image{i:02}.bmp" for i in range(TRAIN + test)]
    for path in paths:
        width, height = int(rng.integers(20, 40)), int(rng.integers(20, 40))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    splits = ["test" if i in held_out else "train" for i in range(len(paths))]
    ids = [f"i{i:02}" for i in range(len(paths))]
    images = make_manifest_of(folder / "images.parquet", paths, splits, 5, ids)
    z = rng.normal(0, 2, (len(images), len(CLASSES))).astype(np.float32)
    coordinates = {"image": list(images["id"]), "class": CLASSES}
    write_group(folder / "fused.zarr", {"z": (label_spec(*z.shape, 5), z)}, coordinates, {})
    train_rows = np.flatnonzero(images["split"] == "train")
    chosen = [int(train_rows[i]) for i in (0, 3, 3, 7, 8, 0)]
    table = pd.DataFrame({"class": np.repeat(CLASSES, 2), "rank": [0, 1] * 3, "row": chosen, "score": 0.0})
    table.insert(2, "image", images["id"].to_numpy()[chosen])
    table.to_parquet(folder / "patches.parquet", index=False)
    return folder


def settings(**changes) -> dict:
    """Settings of the stage; changes are dotted with __ (train__epochs=3)."""
    result = {
        "classes": CLASSES,
        "student": OpenClipStudentConfig().model_dump(mode="json"),
        "sew": SewConfig().model_dump(),
        "train": AdapterTrainingConfig(
            adapter=AdapterConfig(reduction=4, width=8, layers=1, heads=2, feedforward=8), epochs=2, batch_size=4
        ).model_dump(),
        "correct": SqrtCorrectionConfig().model_dump(),
        "score": SoftmaxScoringConfig().model_dump(),
    }
    for key, value in changes.items():
        *groups, name = key.split("__")
        section = result
        for group in groups:
            section = section[group]
        section[name] = value
    return result


def run_train(
    world: Path,
    out: Path,
    chosen: dict,
    workers: int = 0,
    labels: str = "fused.zarr",
    device: str = "cpu",
    checkpoint_seconds: float = 0,
) -> Path:
    adapter = out / "adapter.safetensors"
    stage.run(
        world / "images.parquet",
        world / labels,
        adapter,
        chosen,
        world / "patches.parquet",
        device,
        workers,
        checkpoint_seconds=checkpoint_seconds,
        build=backbone,
    )
    return adapter
