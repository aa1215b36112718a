"""How long new labels take once all views are encoded: after an edit of a prompt, and after one of alpha.

python benchmarks/after_encoding.py

Each stage is the command that the workflow calls, a process of its own, on embeddings that do not exist elsewhere, of
COCO's size. `text` embeds the class names with the demo's tiny CLIP: a large teacher's weights have to be read, which
depends on the teacher and not on the images; its output is left aside.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path

import typer

from common import REPEATS, RESULTS, Out, Repeats, Thing, Tiny, measure
from cutsew.pipeline.plan import DEFAULT, Plan
from synthetic import write_world
from tables import Report, publish, row, total

COCO = {"images": 82_081, "passes": 20, "classes": 80, "width": 1024}
TINY = {"images": 300, "passes": 2, "classes": 4, "width": 8}
THREADS = 2


def stage(folder: Path, name: str, artifacts: tuple[str, ...], classes: int, *, here: bool, **options: int) -> Thing:
    """Make a stage a thing to measure.

    Args:
        folder: of the artifacts.
        name: of the stage.
        artifacts: that it reads and writes.
        classes: C.
        here: call its function instead of starting its command, which is quicker and says less.
        options: of the command, next to the settings.

    """
    config = {
        "classes": [f"class {c}" for c in range(classes)],
        "teacher": {"open_clip": {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 96}},
    }
    settings, paths = Plan(config).settings(DEFAULT, name), [folder / artifact for artifact in artifacts]
    if here:
        function = getattr(importlib.import_module(f"cutsew.stages.{name}"), name)
        return Thing(name, lambda: function(*paths, settings=settings, **options))
    result = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    return Thing(name, [sys.executable, "-m", "cutsew", name, *paths, *result, "--settings", json.dumps(settings)])


def labelling(folder: Path, classes: int, *, here: bool) -> list[Thing]:
    """Make all stages between the embeddings and the labels that training starts from."""
    scored = stage(folder, "score", ("views.zarr", "text.zarr", "logits.zarr"), classes, here=here, threads=THREADS)
    reads = {
        "fuse": ("logits.zarr", "fused.zarr"),
        "correct": ("fused.zarr", "pseudo.zarr"),
        "select": ("images.parquet", "logits.zarr", "patches.parquet"),
    }
    return [scored, *(stage(folder, name, artifacts, classes, here=here) for name, artifacts in reads.items())]


def main(tiny: Tiny = False, repeats: Repeats = REPEATS, out: Out = RESULTS) -> None:
    """Measure the stages between the embeddings and the labels, and what an edit reruns of them."""
    size = TINY if tiny else COCO
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_world(folder, **size)
        things = labelling(folder, size["classes"], here=tiny)
        if not tiny:
            things.insert(0, stage(folder, "text", ("other-text.zarr",), size["classes"], here=False))
        rounds = measure(things, repeats, warm=0 if tiny else 1)
    names = [thing.name for thing in things]
    rows = [row(thing, rounds) for thing in things]
    rows.append(total("a prompt is edited: all of these", names, rounds, "at most 60 s, 1 GiB"))
    rows.append(total("alpha is edited: fuse, correct", ["fuse", "correct"], rounds, "at most 10 s, 1 GiB"))
    title = f"After encoding: {size['images']:,} images, {size['passes']} passes, {size['classes']} classes"
    publish(Report("after_encoding", title, rows, conditions={**size, "threads of score": THREADS}), out, tiny)


if __name__ == "__main__":
    typer.run(main)
