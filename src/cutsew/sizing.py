"""What a job asks a cluster for: memory and time, from the settings and the number of photos.

Estimates on the generous side: a model's work per view is a published figure, the speed of devices a cautious guess,
and both are asked for again, multiplied, when a job fails. Nothing here changes a result.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cutsew.artefacts.logits import ROWS
from cutsew.config import Config
from cutsew.named_models import is_named, known_config
from cutsew.numerics.schedule import automatic_epochs
from cutsew.preprocessing import model_config

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
UNKNOWN = (200, 224, 2500)
"""Taken for a model that WORK does not name."""

GPU_GFLOPS = 30_000
"""Of one data-centre GPU in TF32 or bfloat16, as far as convolutions of this kind reach it."""
CPU_GFLOPS = 15
"""Of one core."""
PHOTO_SECONDS = 0.02
"""Decoding one photo and cutting its views, on one core."""

PYTHON_MB, WORKER_MB, CACHE_MB, FEATURES_MB = 1200, 500, 600, 2048
"""An interpreter with torch; a decoding worker; decoded photos; most features that a training keeps."""
LIGHT_MB, WIDEST = 600, 4096
"""A stage without a network: an interpreter with zarr and pandas; the widest embedding that is reckoned with."""
GPU_MB = 2000
"""What CUDA takes of a job's host memory."""
PATCH, REGIONS, BLOCKS, HEADS = 16, 5, 24, 16
"""Of TagCLIP: pixels of a patch's side, regions asked again in a photo; blocks and heads of a large transformer."""
TILED = 5
"""Views of a photo for a student that looks at tiles too (numerics/tiles.py, which would bring torch)."""
SLACK_MINUTES = 10


@dataclass(frozen=True)
class Job:
    """How much work a job has.

    Attributes:
        photos: photos that it reads.
        passes: views of each, or passes whose numbers it reads.
        threads: cores that it has.
        gpu: whether it has a GPU.

    """

    photos: int
    passes: int
    threads: int
    gpu: bool


def megabytes(config: Config, stage: str, job: Job) -> int:
    """Estimate the host memory of a stage's job, in MB."""
    if stage not in ("encode", "tagclip", "train", "predict", "explain", "tiny_clip"):
        return LIGHT_MB + _light_bytes(config, stage, job) // 10**6
    weights = _work(*_model(config, stage))[1]
    if stage == "tagclip":
        return PYTHON_MB + 2 * weights + job.threads * (WORKER_MB + _attention(config)) + (GPU_MB if job.gpu else 0)
    if stage == "explain":  # the teacher too
        weights += _work(*_model(config, "encode"))[1]
    needed = PYTHON_MB + 2 * weights + job.threads * WORKER_MB + (GPU_MB if job.gpu else 0)
    if stage == "train":
        side = _model(config, stage)[1] // 32
        features = min(FEATURES_MB, job.photos * 2048 * side**2 * 4 // 10**6)
        needed += CACHE_MB + features + job.photos * len(config.classes) * 20 // 10**6
    return needed


def _light_bytes(config: Config, stage: str, job: Job) -> int:
    """Estimate the bytes of arrays that a stage without a network holds at a time."""
    classes, rows = len(config.classes), max(ROWS, config.dataset.shard_size)
    if stage == "score":  # a pass of one slab per thread: embeddings as stored, read and in a block; its logits
        texts = sum(map(len, config.prompts.wordings_of(config.classes))) + len(config.prompts.background)
        return job.threads * ROWS * (6 * WIDEST + 40 * texts)
    if stage == "import_scores":  # an array of a file may have to be read whole
        return 8 * job.photos * job.passes * classes
    return 32 * rows * classes * (2 + job.passes)  # all passes of one slab, and what is computed of them in float64


def minutes(config: Config, stage: str, job: Job) -> int:
    """Estimate the time of a stage's job, twice over, in minutes."""
    reading = job.photos * PHOTO_SECONDS / job.threads
    if stage in ("encode", "tagclip", "train", "predict", "tiles", "explain"):
        work = _work(*_model(config, stage))[0] * job.photos * job.passes
        if stage == "tagclip":
            work = job.photos * _work_of_patches(config)
        if stage == "tiles":
            work *= TILED
        if stage == "explain":
            work += _work(*_model(config, "encode"))[0] * job.photos
        computing = work / (GPU_GFLOPS if job.gpu else CPU_GFLOPS * job.threads)
        epochs = _epochs(config, job.photos) if stage == "train" else 1
        seconds = epochs * (computing + reading * (3 if stage == "train" else 1))
    elif stage in ("score", "import_scores", "fuse"):
        seconds = job.photos * job.passes * 1e-4
    else:
        seconds = 2 * reading
    return SLACK_MINUTES + int(2 * seconds / 60)


def _epochs(config: Config, photos: int) -> int:
    """Count the epochs of sewn photos that a training makes features of."""
    if config.student.head == "linear":
        needed = math.ceil(config.linear.steps * config.linear.batch_size / max(1, photos))
        return min(needed, config.linear.sewn_epochs)
    if config.train.epochs == "auto":
        return automatic_epochs(max(1, photos // config.train.batch_size))
    return config.train.epochs


def _model(config: Config, stage: str) -> tuple[str, int]:
    """Name the model that a stage runs, and the side of its views in pixels."""
    if stage in ("encode", "tagclip"):
        if config.teacher.kind == "conse":
            return config.teacher.conse.encoder, 224
        named = config.teacher.open_clip
        return named.model, named.image_size or _own_side(named.model)
    if config.student.kind == "timm":
        return config.student.timm.model.partition(".")[0], config.student.timm.image_size  # without its tag
    return config.student.open_clip.model, config.student.open_clip.image_size


def _work_of_patches(config: Config) -> float:
    """Return GFLOP for the patches of one photo and the regions that are asked again."""
    model, side = _model(config, "tagclip")
    return _work(model, round(PATCH * config.score.tagclip.patches**0.5))[0] + REGIONS * _work(model, side)[0]


def _attention(config: Config) -> int:
    """Return MB of the attention among a photo's patches: kept of all blocks, and of one block's heads."""
    return (BLOCKS + HEADS) * config.score.tagclip.patches**2 * 4 // 10**6


def _own_side(model: str) -> int:
    """Return the side of a model's own views; 224 where its description is not at hand."""
    described = known_config(model) if is_named(model) else model_config(model)
    side = described.get("vision_cfg", {}).get("image_size")
    return side if isinstance(side, int) else 224


def _work(model: str, side: int) -> tuple[float, int]:
    """Return GFLOP per view of that side, and MB of weights."""
    if is_named(model):
        return _described_work(known_config(model), side)
    work, usual, weights = WORK.get(model.removesuffix("-quickgelu"), UNKNOWN)
    return work * (side / usual) ** 2, weights


def _described_work(config: Mapping[str, Any], side: int) -> tuple[float, int]:
    """Estimate GFLOP and MB from the sizes of two transformers; other towers count as UNKNOWN."""
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
