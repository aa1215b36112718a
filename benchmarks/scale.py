"""Peak memory and time of every stage but encode, at a chosen number of images, classes and passes.

python benchmarks/scale.py --images 1000000 --classes 80 --passes 2 --width 32

Each stage is the command that the workflow calls, a process of its own, on embeddings of images that do not exist. The
student is the demo's tiny CLIP on a handful of small images, each of which many rows of the manifest name.
"""

import importlib
import inspect
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from common import RESULTS, Out, Repeats, Thing, Tiny, measure
from cutsew.pipeline.plan import DEFAULT, Plan
from cutsew.storage.atomic import write_text
from cutsew.storage.tables import label_column
from images import image
from synthetic import write_world
from tables import Report, publish, row

FILES, SIDE, ROWS, PRESENT = 64, 96, 8192, 0.02
"""Image files and their side in pixels; rows of the truth that are drawn at a time, and the share that is present."""

STAGES = ("score", "fuse", "correct", "targets", "select", "train", "predict", "thresholds", "labels_table")
STAGES += ("evaluate", "report")


def arguments(folder: Path, stages: Sequence[str]) -> dict[str, list[str]]:
    """Return each stage's arguments, without settings; what a stage left out would write is no argument either."""

    def options(**paths: str) -> list[str]:
        written = {"scores.zarr": "predict", "refined.zarr": "train", "history.csv": "train"}
        asked = {name: path for name, path in paths.items() if written.get(path, stages[0]) in stages}
        return [word for name, path in asked.items() for word in (f"--{name}", str(folder / path))]

    def labels(*names: str) -> list[str]:
        paths = {"zero_shot": "logits", "student": "scores"}
        asked = [name for name in names if {"refined": "train", "student": "predict"}.get(name, stages[0]) in stages]
        return [word for name in asked for word in ("--stage", f"{name}={folder}/{paths.get(name, name)}.zarr")]

    def files(*names: str) -> list[str]:
        return [str(folder / name) for name in names]

    zarrs = {"logits": "logits.zarr", "fused": "fused.zarr", "pseudo": "pseudo.zarr", "targets": "targets.zarr"}
    zarrs |= {"refined": "refined.zarr", "scores": "scores.zarr", "labels": "truth.parquet"}
    zarrs |= {"thresholds": "thresholds.csv"}
    images = {"images": "images.parquet"}
    return {
        "score": [*files("views.zarr", "text.zarr", "logits.zarr"), "--threads", "2"],
        "fuse": files("logits.zarr", "fused.zarr"),
        "correct": files("fused.zarr", "pseudo.zarr"),
        "targets": files("images.parquet", "pseudo.zarr", "targets.zarr"),
        "select": files("images.parquet", "logits.zarr", "patches.parquet"),
        "train": files("images.parquet", "targets.zarr", "adapter.safetensors")
        + ["--patches", str(folder / "patches.parquet"), "--device", "cpu", "--workers", "0"],
        "predict": [*files("images.parquet", "adapter.safetensors", "scores.zarr"), "--device", "cpu"],
        "thresholds": files("images.parquet", "thresholds.csv")
        + labels("zero_shot", "fused", "pseudo", "targets", "refined", "student"),
        "labels_table": files("images.parquet", "labels.csv")
        + labels("targets", "refined", "student")
        + options(thresholds="thresholds.csv"),
        "evaluate": files("images.parquet", "metrics.csv") + options(**zarrs),
        "report": files("report.html")
        + options(metrics="metrics.csv", **images, **zarrs, history="history.csv", views="views.zarr"),
    }


def things(folder: Path, config: Mapping[str, Any], stages: Sequence[str], *, here: bool) -> Iterator[Thing]:
    """Make the stages things to measure; `here` calls their functions, which is quicker and says less."""
    plan, words = Plan(config), arguments(folder, stages)
    for name in stages:
        settings = plan.settings(DEFAULT, name)
        module = importlib.import_module(f"cutsew.stages.{name}")
        command = [sys.executable, "-m", "cutsew", name, *words[name]]
        takes_settings = "settings" in inspect.signature(getattr(module, name)).parameters
        if takes_settings:
            write_text(folder / f"{name}.settings.json", json.dumps(settings))
            command += ["--settings", f"@{folder / name}.settings.json"]
        if not here:
            yield Thing(name, command)
            continue
        app = typer.Typer()
        app.command()(getattr(module, name))
        yield Thing(name, lambda app=app, command=command: app(command[4:], standalone_mode=False))


def write_truth(path: Path, ids: Sequence[str], classes: int) -> None:
    """Write truth.parquet block by block."""
    rng = np.random.default_rng(2)
    names = [label_column(f"class {c}") for c in range(classes)]
    schema = pa.schema([("id", pa.string()), *((name, pa.int8()) for name in names)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(ids), ROWS):
            part = list(ids[start : start + ROWS])
            drawn = (rng.random((len(part), classes), dtype=np.float32) < PRESENT).astype(np.int8)
            columns = {"id": part, **dict(zip(names, drawn.T, strict=True))}
            writer.write_table(pa.table(columns, schema=schema))


def main(
    tiny: Tiny = False,
    repeats: Repeats = 1,
    out: Out = RESULTS,
    images: Annotated[int, typer.Option(help="N, those held out among them.")] = 1_000_000,
    classes: Annotated[int, typer.Option(help="C.")] = 80,
    passes: Annotated[int, typer.Option(help="M.")] = 2,
    width: Annotated[int, typer.Option(help="D of an embedding.")] = 32,
    held_out: Annotated[int, typer.Option(help="Every how many-th image is held out.")] = 50,
    stages: Annotated[str, typer.Option(help="Those to measure, separated by commas.")] = ",".join(STAGES),
    method: Annotated[str, typer.Option(help="cutsew (linear head) or paper (adapter).")] = "cutsew",
    keep: Annotated[str, typer.Option(help="score.keep: all or none.")] = "all",
    folder: Annotated[Path | None, typer.Option(help="Keep the artifacts there, and use those that are there.")] = None,
) -> None:
    """Measure the stages one after the other."""
    if tiny:
        images, classes, held_out, stages = 90, 4, 3, "score,fuse,correct,targets,select,thresholds,evaluate"
    chosen = stages.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        if not (place / "truth.parquet").exists():
            place.mkdir(parents=True, exist_ok=True)
            shared = {"held_out": held_out, "files": _files(place), "size": (SIDE, SIDE)}
            write_world(place, images, passes, classes, width, **shared)
            ids = pd.read_parquet(place / "images.parquet", columns=["id"])["id"].tolist()
            write_truth(place / "truth.parquet", ids, classes)
        measured = list(things(place, _config(classes, method, keep), chosen, here=tiny))
        rounds = measure(measured, repeats, warm=0)
    title = f"Stages after encode: {images:,} images, {classes:,} classes, {passes} passes"
    conditions = {"images": images, "classes": classes, "passes": passes, "width": width, "held_out": held_out}
    conditions |= {"method": method, "score.keep": keep}
    publish(Report("scale", title, [row(thing, rounds) for thing in measured], conditions=conditions), out, tiny)


def _files(folder: Path) -> list[Path]:
    folder.joinpath("photos").mkdir(exist_ok=True)
    paths = [folder / "photos" / f"{index}.jpg" for index in range(FILES)]
    for index, path in enumerate(paths):
        image(index, SIDE, SIDE).save(path)
    return paths


def _config(classes: int, method: str, keep: str) -> dict[str, Any]:
    model = {"kind": "open_clip", "open_clip": {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 96}}
    config = {
        "classes": [f"class {c}" for c in range(classes)],
        "method": method,
        "cut": {"layout": "random"},
        "teacher": model,
        "student": model,
        "targets": {"labels_per_image": "auto"},
        "select": {"top_k": "auto"},
        "train": {"epochs": 1} if method == "paper" else {"steps": 100},
    }
    return config if keep == "all" else config | {"score": {"keep": keep}}


if __name__ == "__main__":
    typer.run(main)
