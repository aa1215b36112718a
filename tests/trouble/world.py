"""A small run, made once by the real stages, of which each case damages a copy."""

import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from cutsew.provenance.record import Record
from cutsew.stages.correct import correct
from cutsew.stages.evaluate import evaluate
from cutsew.stages.fuse import fuse
from cutsew.stages.labels_table import labels_table
from cutsew.stages.report import report
from cutsew.stages.score import score
from cutsew.stages.seal import seal
from cutsew.stages.select import select
from cutsew.storage.manifest import read_manifest, shard_digests, write_manifest
from cutsew.storage.zarr_layout import ArraySpec, view_chunk_file, view_chunk_record, view_specs
from cutsew.storage.zarr_writer import write_chunk, write_group

CLASSES = ["cat", "dog"]
IDS = [f"train{i}" for i in range(4)] + ["test0", "test1"]
WIDTH, SHARD, PASSES = 4, 3, 2
CUT = {"cut": {"passes": PASSES, "passes_per_job": PASSES}, "dataset": {"shard_size": SHARD}}
FACTS = {"width": WIDTH, "image_size": 8, "weights": "abc", "logit_scale": 10.0}
FACTS |= {"preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3}}
EVALUATE = {"evaluate": {"threshold": 0.5, "top": 1}}


def values(seed: object, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(int(hashlib.sha256(repr(seed).encode()).hexdigest()[:8], 16))
    return rng.normal(size=shape).astype(np.float32)


def write_images(path: Path, ids: list[str] = IDS) -> None:
    table = pd.DataFrame({"id": ids, "path": [f"/nowhere/{i}.jpg" for i in ids], "width": 8, "height": 6, "bytes": 9})
    table["digest"] = [hashlib.sha256(i.encode()).hexdigest() for i in ids]
    table["split"] = ["train" if i.startswith("train") else "test" for i in ids]
    table["shard"] = table.index // SHARD
    write_manifest(path, table)


def encode(run: Path) -> None:
    """Stand in for the stage encode: chunk files and records of made-up embeddings."""
    images = read_manifest(run / "images.parquet")
    for shard, rows in images.groupby("shard"):
        layout = view_specs(len(rows), WIDTH, SHARD, PASSES, PASSES)
        written = {}
        for name, block in (("global", None), ("crops", 0), ("boxes", 0)):
            shape = (len(rows), layout[name].shape[-1])
            result = values((shard, name), *(shape if block is None else (PASSES, *shape)))
            path = view_chunk_file(run / "views.zarr", name, int(shard), block)
            written[str(path.relative_to(run / "views.zarr"))] = write_chunk(path, result, layout[name])
        record = Record(
            "encode", 2, {"cut": {}}, [run / "images.parquet"], {**FACTS, "rows": shard_digests(rows)[shard]}
        )
        record.write(view_chunk_record(run / "views.zarr", int(shard), 0), written)


def embed_texts(run: Path, classes: list[str] = CLASSES, weights: str = "abc") -> None:
    spec = ArraySpec((len(classes), WIDTH), "float32", ("class", "embedding"), (len(classes), WIDTH))
    attributes = {"weights": weights, "logit_scale": 10.0}
    write_group(
        run / "text.zarr", {"text": (spec, values("text", len(classes), WIDTH))}, {"class": classes}, attributes
    )
    Record("text", 1, {"classes": classes}).write_beside(run / "text.zarr")


STAGES = {
    "seal": lambda run, out: seal(run / "images.parquet", out / "views.zarr", CUT),
    "score": lambda run, out: score(run / "views.zarr", run / "text.zarr", out / "logits.zarr", {"score": {}}),
    "fuse": lambda run, out: fuse(run / "logits.zarr", out / "fused.zarr", {"fuse": {}, "score": {}}),
    "correct": lambda run, out: correct(run / "fused.zarr", out / "pseudo.zarr", {"correct": {}}),
    "select": lambda run, out: select(
        run / "images.parquet", run / "logits.zarr", out / "patches.parquet", {"select": {"top_k": 2}}
    ),
    "evaluate": lambda run, out: evaluate(
        run / "images.parquet", out / "metrics.csv", settings=EVALUATE, labels=run / "truth.parquet", **zarrs(run)
    ),
    "labels_table": lambda run, out: labels_table(
        run / "images.parquet",
        out / "labels.csv",
        settings=EVALUATE,
        stage=[f"{name}={run / name}.zarr" for name in ("pseudo", "fused")],
    ),
    "report": lambda run, out: report(
        out / "report.html", metrics=run / "metrics.csv", images=run / "images.parquet", **zarrs(run)
    ),
}
"""Stage -> how it is run on a run's folder, writing to another."""


def zarrs(run: Path) -> dict[str, Path]:
    return {name: run / f"{name}.zarr" for name in ("logits", "fused", "pseudo")}


@cache
def base() -> Path:
    """Return the folder of the sound run."""
    run = Path(tempfile.mkdtemp(prefix="trouble-")) / "run"
    run.mkdir()
    write_images(run / "images.parquet")
    truth = pd.DataFrame({"id": IDS, **{c: (values(c, len(IDS)) > 0).astype(np.int8) for c in CLASSES}})
    truth.to_parquet(run / "truth.parquet", index=False)
    encode(run)
    embed_texts(run)
    for name, stage in STAGES.items():
        if name != "report":  # whose images are nowhere
            stage(run, run)
    return run


def copy(folder: Path) -> Path:
    return Path(shutil.copytree(base(), folder / "run"))
