"""What teacher and student compute: GFLOP per view, MB of weights, sides of views, from the settings alone.

Published figures for known models, an estimate for other transformers, generous ones for the rest. Imports no torch.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from cutsew.config import Config
from cutsew.config.method import TagClipScoringConfig
from cutsew.config.named_models import is_named, known_config
from cutsew.method.schedule import automatic_epochs
from cutsew.models.model_tables import model_config

WORK = {  # model -> (GFLOP per view, side of that view in pixels, MB of float32 weights); open_clip's model profiles
    "cutsew-tiny": (0.2, 96, 10),
    "cutsew-tiny-sigmoid": (0.2, 96, 10),
    "RN50": (12, 224, 410),
    "RN101": (20, 224, 480),
    "RN50x4": (43, 288, 720),
    "RN50x16": (127, 384, 1170),
    "RN50x64": (529, 448, 2500),
    "ViT-B-32": (9, 224, 610),
    "ViT-B-16": (35, 224, 600),
    "ViT-L-14": (162, 224, 1720),
    "ViT-L-14-336": (395, 336, 1720),
    "efficientnet_lite0": (0.8, 224, 30),
    "tf_efficientnet_lite0": (0.8, 224, 30),
}
GPU_GFLOPS = 30_000
"""Of one data-center GPU in TF32, where nothing is set; an H200 reached 160,000 on an RN50x64."""
CPU_GFLOPS = 15
"""Of one core."""

UNKNOWN = (200, 224, 2500)
"""Taken for a model that WORK does not name."""

PATCH, REGIONS = 16, 5
"""Of TagCLIP: pixels of a patch's side, regions scored again per image."""


def assumed_gflops(cores: int, *, gpu: bool) -> float:
    """Return the speed of a network where it was not measured, in GFLOP per second."""
    return GPU_GFLOPS if gpu else CPU_GFLOPS * cores


def gflop_per_view(config: Config) -> float:
    """Return the teacher's work for one view of its own side, in GFLOP."""
    return model_work(*model_of(config, "encode"))[0]


def feature_epochs(config: Config, images: int) -> int:
    """Count the epochs of sewn images that a training makes features of."""
    if config.train.head == "linear":
        needed = math.ceil(config.train.steps * config.train.batch_size / max(1, images))
        return min(needed, config.train.sewn_epochs)
    if config.train.epochs == "auto":
        return automatic_epochs(max(1, images // config.train.batch_size))
    return config.train.epochs


def model_of(config: Config, stage: str) -> tuple[str, int]:
    """Name the model that a stage runs, and the side of its views in pixels."""
    if stage in ("text", "encode", "tagclip"):
        if config.teacher.kind == "conse":
            return config.teacher.conse.encoder, teacher_side(config)
        if config.teacher.kind == "open_clip":
            return config.teacher.open_clip.model, teacher_side(config)
        raise ValueError(f"teacher.kind: scores has no model for {stage}")
    if config.student.kind == "timm":
        return config.student.timm.model.partition(".")[0], config.student.timm.image_size  # without its tag
    if config.student.kind == "open_clip":
        return config.student.open_clip.model, config.student.open_clip.image_size
    raise ValueError(f"student.kind: none has no model for {stage}")


def grid_of(config: Config) -> tuple[int, int]:
    """Return cells and channels of the student's grid features: a vision transformer's by its name, else a ResNet's."""
    model, side = model_of(config, "train")
    patch = re.search(r"ViT-([A-Za-z]+)-(\d+)", model)
    if patch is None:
        return max(1, side // 32) ** 2, 2048
    return max(1, side // int(patch[2])) ** 2, 768 if patch[1] in ("S", "B") else 1280


def head_work(config: Config) -> float:
    """Return GFLOP of one image in a step of the adapter's training, forward and backward; 0 for a linear head."""
    if config.train.head == "linear":
        return 0.0
    cells, channels = grid_of(config)
    adapter, classes = config.train.adapter, len(config.classes)
    width, group = adapter.width, min(classes, adapter.query_group)
    grid = cells * channels * (2 * channels / adapter.reduction + width)
    query = 6 * width + 2 * adapter.feedforward + 2 * group + 2 * cells  # of one layer, in products with its width
    passes = 3 if group == classes else 4  # groups are decoded again for their gradient
    return 2 * passes * (grid + adapter.layers * width * (classes * query + 2 * cells * width)) / 1e9


def patches_work(config: Config) -> float:
    """Return GFLOP for the patches of one image and the regions that are scored again."""
    model, side = model_of(config, "tagclip")
    return model_work(model, round(PATCH * num_patches(config) ** 0.5))[0] + REGIONS * model_work(model, side)[0]


def num_patches(config: Config) -> int:
    """Return the most patches of an image that TagCLIP scores."""
    return (config.score if config.score.rule == "tagclip" else TagClipScoringConfig()).tagclip.patches


def views(config: Config, passes: range) -> int:
    """Count the work of crops in views of the teacher's own side, rounded up; 0 for a teacher without a model."""
    if config.teacher.kind == "scores":
        return 0
    teacher_size = teacher_side(config)
    return math.ceil(
        sum(len(run) * (side / teacher_size) ** 2 for run, side in config.cut.by_side(passes, teacher_size))
    )


def teacher_side(config: Config) -> int:
    """Return the side of the teacher's views in pixels; 224 where nothing here says it."""
    if config.teacher.kind != "open_clip":
        return 224
    named = config.teacher.open_clip
    return named.image_size or _own_side(named.model)


def _own_side(model: str) -> int:
    """Return the side of a model's own views; 224 where its description is not at hand."""
    side = model_config(model).get("vision_cfg", {}).get("image_size")
    return side if isinstance(side, int) else 224


def model_work(model: str, side: int) -> tuple[float, int]:
    """Return GFLOP per view of that side, and MB of weights."""
    if is_named(model):
        return described_work(known_config(model), side)
    work, native_side, weights = WORK.get(model.removesuffix("-quickgelu"), UNKNOWN)
    return work * (side / native_side) ** 2, weights


def described_work(config: Mapping[str, Any], side: int) -> tuple[float, int]:
    """Estimate GFLOP and MB from the sizes of two transformers; other towers are UNKNOWN."""
    unknown = UNKNOWN[0] * (side / UNKNOWN[1]) ** 2, UNKNOWN[2]
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    try:
        blocks, width, patch = vision["layers"], vision["width"], vision["patch_size"]
        words = (text["layers"] * 12 * text["width"] + text["vocab_size"]) * text["width"]
        parameters = blocks * 12 * width**2
        tokens = (side // patch) ** 2 + 1
        gflop = 2 * tokens * (parameters + 2 * blocks * tokens * width) / 1e9
        return float(gflop), int(4 * (parameters + words) / 1e6) + 50
    except (KeyError, TypeError, ZeroDivisionError):
        return unknown
