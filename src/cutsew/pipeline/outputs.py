"""Which stage writes which files of a run's folder, and which stages a run needs."""

from collections.abc import Callable, Iterator
from pathlib import Path

from cutsew.config import Config
from cutsew.storage import zarr_layout as layout

OUTPUTS: dict[str, tuple[str, ...]] = {
    "tiny_clip": ("cutsew-tiny.safetensors", "cutsew-tiny.safetensors.json"),
    "demo_world": ("world", "world.json"),
    "download": ("download.json",),
    "manifest": ("images.parquet", "shards.csv", "skipped.csv", "images.json"),
    "truth": ("truth.parquet", "truth.json"),
    "text": ("text.zarr", "text.json"),
    "encode": ("views.zarr", "views.records"),
    "seal": ("views.zarr", "views.json"),
    "score": ("logits.zarr", "logits.json"),
    "import_scores": ("logits.zarr", "logits.json"),
    "tagclip": ("tagclip.zarr", "tagclip.records"),
    "seal_tagclip": ("tagclip.zarr", "tagclip.json"),
    "fuse": ("fused.zarr", "fused.json"),
    "correct": ("pseudo.zarr", "pseudo.json"),
    "targets": ("targets.zarr", "targets.json"),
    "corrections": ("corrections.parquet", "corrections.json"),
    "override": ("overridden.zarr", "overridden.json"),
    "select": ("patches.parquet", "patches.json"),
    "train": ("adapter.safetensors", "model.yaml", "refined.zarr", "history.csv", "adapter.json", "refined.json"),
    "predict": ("scores.zarr", "scores.json"),
    "tiles": ("tiles.zarr", "tiles.csv", "tiles.json"),
    "ensemble": ("ensemble.zarr", "ensemble.csv", "ensemble.json"),
    "thresholds": ("thresholds.csv", "thresholds.json"),
    "labels_table": ("labels.csv", "labels.parquet", "labels.json"),
    "explain": ("maps.zarr", "maps.json"),
    "reference_labels": ("references",),
    "reference_train": ("references",),
    "reference_predict": ("references",),
    "evaluate": (
        "metrics.csv",
        "per_class.csv",
        "agreement.csv",
        "confidence.csv",
        "thresholds_f1.csv",
        "metrics.json",
    ),
    "report": ("report.html", "scenes.png", "report.json"),
}
"""Stage -> names of the files and folders that it writes into a run's folder; held against the rules by a test."""

CACHES = {"manifest": ("images.cache",), "encode": ("views.cache",), "tagclip": ("tagclip.cache",)}
"""Stage -> folders, in a run's folder, in which it caches what it found or computed of each image."""

LAST_FILES = {"report": "report.html", "labels_table": "labels.csv"}
"""By stage, the files of a run that its target names: no other file depends on them."""

FINALIZED_BY = {"encode": "seal", "tagclip": "seal_tagclip"}
"""Stage whose jobs write one shard's chunk files each -> the stage that writes their Zarr's metadata last."""

SWEEPS = "sweeps"
"""Folder of a dataset that holds tables over many runs."""
WEIGHTS = ".weights.json"
"""File of a dataset that remembers the digests of local weights."""
FEATURES = "features"
"""Folder of a dataset that holds cached features of trainings: a cache, no artifact."""


def _of_encoding(group: Path, config: Config, shard: int) -> Iterator[Path]:
    for block in range(config.cut.blocks):
        yield from layout.view_chunk_files(group, shard, block, len(config.cut.passes_of(block)))
        yield layout.view_chunk_record(group, shard, block)


def _of_tagclip(group: Path, _config: Config, shard: int) -> Iterator[Path]:
    yield layout.tagclip_chunk_file(group, layout.TAGCLIP_LOCAL, shard)
    yield layout.tagclip_chunk_file(group, layout.TAGCLIP_GLOBAL, shard)
    yield layout.tagclip_chunk_record(group, shard)


SHARD_FILES: dict[str, Callable[[Path, Config, int], Iterator[Path]]] = {
    "encode": _of_encoding,
    "tagclip": _of_tagclip,
}
"""Stage -> the chunk files and records that its jobs write for a shard, given the Zarr's folder and the settings."""


def required_stages(config: Config) -> set[str]:
    """Name the stages that a run of these settings needs."""
    stages = {"manifest", "fuse", "correct", "thresholds", "labels_table", "evaluate", "report"}
    stages |= {"targets"} if config.targets.labels_per_image is not None else set()
    stages |= {"import_scores"} if config.teacher.kind == "scores" else {"text", "encode", "seal", "score"}
    stages |= {"tagclip", "seal_tagclip"} if config.score.rule == "tagclip" else set()
    if config.student.kind != "none":
        stages |= {"train", "predict"} | ({"select"} if config.sew.kind != "none" else set())
        stages |= {"explain"} if config.explain.kind != "none" and config.teacher.kind != "scores" else set()
        stages |= {"override"} if config.labels.overrides is not None else set()
        stages |= {"tiles"} if config.predict.tiles else set()
        stages |= {"ensemble"} if config.predict.ensemble == "teacher" else set()
    if config.labels.overrides is not None:
        stages.add("corrections")
    if config.references.kinds:
        stages |= {"reference_train", "reference_predict"}
    if set(config.references.kinds) - {"zero_shot"}:
        stages.add("reference_labels")
    if config.dataset.annotated or config.dataset.truth is not None:
        stages.add("truth")
    if config.dataset.downloaded:
        stages.add("download")
    if config.dataset.kind == "demo":
        stages.add("demo_world")
    if config.dataset.rebuilds_teacher:
        stages.add("tiny_clip")
    return stages
