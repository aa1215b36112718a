"""What a whole run takes, for `cutsew init`: time on one machine, disk space and downloads."""

from dataclasses import dataclass

from cutsew.config import Config
from cutsew.config.cutting import teacher_cost
from cutsew.models.model_tables import model_config
from cutsew.pipeline.network_work import feature_epochs, grid_of, model_of, model_work, teacher_side

START_SECONDS = 5
"""Start and end of a job on two cores, the imports of torch among it."""
FEATURES_GB = 20
"""Most that the cache of a training's features takes, `compute.cache_features: auto`."""
FEATURE_BYTES = 0.5
"""Of a float16 feature, compressed."""
THUMBNAIL_BYTES, REPORT_BYTES = 8_000, 5_000_000
"""Of an image's row in tables and report; of a run's report, model and records."""
EXTREMES_BYTES = 16
"""Of an image and class in logits.zarr without crop logits: of the whole image, of the highest and the lowest crop."""


@dataclass(frozen=True)
class Speed:
    """How fast a machine works, all cores or one GPU together.

    Attributes:
        images: that are decoded and resized, per second.
        gflops: GFLOP of a network, per second.

    """

    images: float
    gflops: float


@dataclass(frozen=True)
class RunEstimate:
    """What a whole run takes.

    Attributes:
        seconds: of wall time on one machine.
        bytes: of results on disk.
        weights: MB of weights that are downloaded first, unless they are on the machine already.

    """

    seconds: float
    bytes: int
    weights: int


def estimate_run(config: Config, images: int, jobs: int, speed: Speed) -> RunEstimate:
    """Estimate time and disk of a run with teacher and student, from an empty folder.

    Args:
        config: of the run, with `cut.layout` resolved.
        images: N, those held out among them.
        jobs: how many the workflow starts.
        speed: of the machine, measured or assumed.

    """
    side = teacher_side(config)
    teacher, weights = model_work(*model_of(config, "encode"))
    student, more_weights = model_work(*model_of(config, "train"))
    epochs = feature_epochs(config, images) + 1  # features of the plain images too, or the answers to the held-out ones
    views = teacher_cost(config.cut.view_sides(side), side)
    work = images * (views * teacher + epochs * student)
    reading = images * (2 + epochs)  # the manifest decodes each image; whole images and regions; training
    named = config.teacher
    width = int(model_config(named.open_clip.model)["embed_dim"]) if named.kind == "open_clip" else 384
    passes, classes = 1 + config.cut.num_passes, len(config.classes)
    cells, channels = grid_of(config)
    features = min(FEATURES_GB * 10**9, images * epochs * cells * channels * FEATURE_BYTES)
    logits = 4 * passes if config.score.keeps_crop_logits else EXTREMES_BYTES
    stored = images * (passes * (2 * width + 20) + (logits + 24) * classes + THUMBNAIL_BYTES) + features
    downloaded = (weights if config.teacher.kind == "open_clip" else 0) + (
        more_weights if config.student.kind == "open_clip" else 0
    )
    seconds = jobs * START_SECONDS + reading / speed.images + work / speed.gflops
    return RunEstimate(seconds, int(stored) + REPORT_BYTES, downloaded)
