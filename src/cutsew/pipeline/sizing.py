"""What a job requests from a cluster: memory and time, estimated from the settings and the number of images.

The estimates are generous: a model's work per view is a published figure, the speed of devices a cautious guess, and a
failed job is retried with a multiple of both requests. Nothing here changes a result.
"""

from dataclasses import dataclass

from cutsew.config import Config
from cutsew.pipeline.network_work import (
    CPU_GFLOPS,
    feature_epochs,
    grid_of,
    head_work,
    model_of,
    model_work,
    num_patches,
    patches_work,
)
from cutsew.storage.zarr_layout import rows_per_chunk

IMAGE_SECONDS = 0.02
"""Decoding one image and cutting its views, on one core."""
GPU_STEP_SECONDS = 0.08
"""A step of the adapter's training whose backbone takes no time: launching its kernels, on a busy core."""

PYTHON_MB, WORKER_MB, CACHE_MB, FEATURES_MB = 1200, 500, 600, 2048
"""An interpreter with torch; a decoding worker; decoded images; most features that a training keeps."""
LIGHT_MB, WIDEST = 600, 4096
"""A stage without a network: an interpreter with zarr and pandas; the widest embedding that is reckoned with."""
GPU_MB = 2000
"""What CUDA takes of a job's host memory."""
BLOCKS, HEADS = 24, 16
"""Blocks and heads of a large transformer, whose attention TagCLIP keeps."""
TILED = 5
"""Views of an image with test-time tiling (method/student_views.py, which would bring torch)."""
SLACK_MINUTES, DOWNLOAD_MINUTES = 10, 24 * 60
TEXT_SECONDS, DRAWING_SECONDS = 1.0, 0.1
"""Embedding one text, drawing one of the demo's images, on one core."""
PHOTOS, PHOTO_SECONDS, PHOTOS_BYTES = 5_000, 0.03, 250_000_000
"""Most photos of a report (`reporting/photos.py`); to read and shrink one; all of them and the search for copies."""
CLASS_BYTES = 30_000
"""Of a class in the report's tables and charts."""
GROUP = 4
"""Images that one thread decodes at a time on a CPU (`batching.MICROBATCH_SIZE`, whose module would bring torch)."""
SAMPLE = 100_000
"""Images from which `thresholds` are chosen; `targets` and `reference_labels` read fewer."""
TEXT_BYTES, ROW_BYTES, LISTED_BYTES = 300, 600, 2500
"""Of an image's id, path and digest in a table that a stage reads: as Arrow text, as Python objects; in the manifest
while it is made."""
BLOCK_BYTES, SLICE_BYTES, IMAGES_AT_ONCE = 160 * 2**20, 64 * 2**20, 8192
"""Of a block of classes and of a slice of images (`storage/predictions.py`, which would bring pandas)."""
TARGETS_BYTES = 2**30
"""Most that the sample of `targets` takes."""
DECODED_MB = 300
"""An image of 100 megapixels, which a thread of `manifest` decodes."""
EMBEDDING_BYTES = 3 * 2 * 1024
"""Of an embedding, float16, in the array, as a chunk and packed."""
TINY_CLIP_MB, TINY_CLIP_MINUTES = 4000, 120
"""Of the training of the demo's teacher."""
LOCAL_MB = 4000
"""Most memory of a job that runs where snakemake runs, which on a cluster is a node for logging in."""


@dataclass(frozen=True)
class Job:
    """How much work a job has.

    Attributes:
        images: images that it reads.
        passes: views of each, or passes whose numbers it reads.
        threads: cores that it has.
        gpu: whether it has a GPU.

    """

    images: int
    passes: int
    threads: int
    gpu: bool


def estimate_memory_mb(config: Config, stage: str, job: Job) -> int:
    """Estimate the host memory of a stage's job, in MB."""
    if stage == "tiny_clip":
        return TINY_CLIP_MB
    if stage not in ("text", "encode", "tagclip", "train", "predict", "explain"):
        return LIGHT_MB + _light_bytes(config, stage, job) // 10**6
    weights = model_work(*model_of(config, stage))[1]
    if stage == "tagclip":
        return PYTHON_MB + 2 * weights + job.threads * (WORKER_MB + _attention(config)) + (GPU_MB if job.gpu else 0)
    if stage == "explain":  # the teacher too
        weights += model_work(*model_of(config, "encode"))[1]
    needed = PYTHON_MB + 2 * weights + job.threads * WORKER_MB + (GPU_MB if job.gpu else 0)
    if stage == "encode":
        vectors = 1 + min(config.cut.block_size, config.cut.num_passes)
        needed += EMBEDDING_BYTES * job.images * vectors // 10**6
    if stage in ("train", "predict", "explain"):
        needed += head_megabytes(config, stage, job)
    if stage == "train":
        needed += TEXT_BYTES * job.images // 10**6
        cells, channels = grid_of(config)
        features = min(FEATURES_MB, job.images * channels * cells * 4 // 10**6)
        needed += CACHE_MB + features
    return needed


def head_megabytes(config: Config, stage: str, job: Job) -> int:
    """Estimate the memory of the head's tensors in `train`, `predict` or `explain`, in MB.

    The decoder's self-attention holds (B, heads, c, c) weights of one group of c queries at a time. Which of
    the tensors are held at a time was measured (test_sizing.py): training on a CPU keeps 3.5 of them for
    each layer, answering 1.3 for each thread, with a group of `GROUP` images each. On a GPU they lie in its memory.
    The table of labels, its two moments and two copies of it are on top of that in training.
    """
    classes = len(config.classes)
    table = job.images * classes * 20 if stage == "train" else 0
    batch = min(job.images, config.train.batch_size if stage == "train" else config.compute.batch_size)
    cells, channels = grid_of(config)
    held = batch * cells * channels * 4 * (10 if stage == "train" else 2)
    if stage != "train":
        held += batch * 3 * model_of(config, stage)[1] ** 2 * (2 * job.threads + 2)  # pixels that wait
    if job.gpu or config.train.head == "linear":
        return (table + held) // 10**6
    adapter = config.train.adapter
    group = min(classes, adapter.query_group)
    attention = adapter.heads * group**2 * 4  # of one image
    across = adapter.heads * group * cells * 4
    wide = group * adapter.width * 4
    held += batch * (classes - group) * adapter.width * 4 * (8 if stage == "train" else 1)  # what was decoded before
    if stage != "train":
        return (held + job.threads * GROUP * int(1.3 * attention + across + 10 * wide)) // 10**6
    layers, dropped = adapter.layers, adapter.dropout > 0
    image = int((3.5 * layers + 0.5 if dropped else layers + 2) * attention)
    image += layers * ((3 if dropped else 1) * across + 16 * wide)
    views = 2 if config.train.strong_weight > 0 else 1
    return (table + views * (held + batch * image)) // 10**6


def _light_bytes(config: Config, stage: str, job: Job) -> int:
    """Estimate the bytes of arrays that a stage without a network holds at a time."""
    images, classes = job.images, len(config.classes)
    rows = rows_per_chunk(classes)
    if config.score.rule == "tagclip":
        rows = max(rows, config.dataset.shard_size)
    texts = sum(map(len, config.prompts.wordings_of(config.classes))) + len(config.prompts.background)
    keeps_crops = config.score.keeps_crop_logits
    plain = config.fuse.rule == "max" and config.fuse.space == "logit"  # other rules compute in float64
    part = 4 * classes * max(1, min(images, IMAGES_AT_ONCE, SLICE_BYTES // (4 * classes)))  # logits of a slice
    return {
        # a pass of one slab per thread: embeddings as stored, read and in a block; its logits
        "score": job.threads * rows * (6 * WIDEST + 16 * texts + (0 if keeps_crops else 20 * classes)),
        # an array of a file may have to be read whole
        "import_scores": TEXT_BYTES * images + 8 * images * job.passes * classes,
        # all passes of one slab, and what is computed of them
        "fuse": (12 if plain else 32) * rows * classes * (2 + (job.passes if keeps_crops else 3)),
        "correct": 48 * rows * classes,
        "select": 28 * rows * classes,
        # ids and likeliest classes of all images; a block of classes; a slice's logits and the ranks of all stages
        "evaluate": 2 * TEXT_BYTES * images + min(4 * BLOCK_BYTES, 40 * images * classes) + 12 * part,
        # and the tables of classes
        "report": PHOTOS_BYTES + 2 * TEXT_BYTES * images + 8 * images * classes + CLASS_BYTES * classes + 12 * part,
        "manifest": LISTED_BYTES * images + job.threads * DECODED_MB * 10**6,
        "truth": (ROW_BYTES + 10 * classes) * images,
        "targets": TEXT_BYTES * images
        + min(3 * TARGETS_BYTES, 12 * min(images, SAMPLE) * classes)
        + 32 * rows * classes,
        "override": 2 * TEXT_BYTES * images + 40 * rows * classes,
        "reference_labels": (TEXT_BYTES + 4 * classes) * images + 24 * min(images, SAMPLE) * classes,
        "corrections": ROW_BYTES * images,
        **dict.fromkeys(("seal", "seal_tagclip"), TEXT_BYTES * images),
        **dict.fromkeys(("demo_world", "download"), 0),
        # the manifest's texts; a slice's logits, probabilities and rows of text
        "labels_table": TEXT_BYTES * images + 140 * rows * classes,
        "thresholds": 2 * TEXT_BYTES * images + min(5 * BLOCK_BYTES, 24 * min(images, SAMPLE) * classes) + 12 * part,
    }[stage]


def estimate_runtime_min(config: Config, stage: str, job: Job) -> int:
    """Estimate the time of a stage's job, twice over, in minutes."""
    reading = job.images * IMAGE_SECONDS / job.threads
    if stage == "tiny_clip":
        return TINY_CLIP_MINUTES
    if stage == "download":
        return DOWNLOAD_MINUTES
    if stage == "text":
        texts = sum(map(len, config.prompts.wordings_of(config.classes))) * len(config.prompts.templates)
        seconds = texts * TEXT_SECONDS / (1 if job.gpu else job.threads)
    elif stage in ("encode", "tagclip", "train", "predict", "tiles", "explain"):
        seconds = _network_seconds(config, stage, job, reading)
    elif stage in ("score", "import_scores", "fuse"):
        seconds = job.images * job.passes * 1e-4
    elif stage == "manifest":
        seconds = 2 * reading
    elif stage == "demo_world" and config.dataset.kind == "demo":
        seconds = (config.dataset.demo.train + config.dataset.demo.test) * DRAWING_SECONDS / job.threads
    else:
        seconds = len(config.classes) + 1e-5 * job.images * len(config.classes)
        seconds += PHOTO_SECONDS * min(job.images, PHOTOS) if stage == "report" else 0
    return SLACK_MINUTES + int(2 * seconds / 60)


def _network_seconds(config: Config, stage: str, job: Job, reading: float) -> float:
    """Estimate the seconds of a stage whose network looks at images; `reading` is those of decoding them once."""
    speed = 1000 * config.compute.gpu_tflops if job.gpu else CPU_GFLOPS * job.threads
    work = model_work(*model_of(config, stage))[0] * job.images * job.passes
    if stage == "tagclip":
        work = job.images * patches_work(config)
    elif stage == "tiles":
        work *= TILED
    elif stage == "explain":
        work += model_work(*model_of(config, "encode"))[0] * job.images
    if stage != "train":
        return work / speed + reading
    epochs = feature_epochs(config, job.images)
    seconds = epochs * ((work + job.images * head_work(config)) / speed + 3 * reading)
    if job.gpu and config.train.head == "adapter":
        seconds += epochs * job.images / config.train.batch_size * GPU_STEP_SECONDS
    return seconds


def _attention(config: Config) -> int:
    """Return MB of the attention among an image's patches: kept of all blocks, and of one block's heads."""
    return (BLOCKS + HEADS) * num_patches(config) ** 2 * 4 // 10**6
