"""How long a job takes to start: `cutsew` itself, a stage that is asked for its help, a job with next to no work.

python benchmarks/startup.py

`encode` is given four images and the demo's tiny CLIP, so that next to all of its time is its start; the imports of
torch, open_clip and timm alone stand next to it.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import typer

from after_encoding import labelling
from common import REPEATS, RESULTS, Out, Repeats, Thing, Tiny, measure
from cutsew.data.images import inspect
from cutsew.pipeline.plan import DEFAULT, Plan
from cutsew.storage.manifest import write_manifest
from images import HEIGHT, WIDTH, write_images
from synthetic import write_world
from tables import Report, publish, row

LIGHT = ("fuse", "score", "correct", "select", "seal", "evaluate")
"""Stages without a network in them."""
IMAGES = 256
ENCODE = "cutsew encode, 4 images"
IMPORTS = {
    "import of torch alone": "import torch",
    "import of torch, open_clip and timm alone": "from cutsew.models import clip as clip_models",
}


def main(tiny: Tiny = False, repeats: Repeats = REPEATS, out: Out = RESULTS) -> None:
    """Measure the start of python, of the command line, and of stages."""
    python = [sys.executable, "-c", "pass"]
    command = [sys.executable, "-m", "cutsew"]
    things = [Thing("python alone", python), Thing("cutsew --help", [*command, "--help"])]
    things += [Thing(f"cutsew {stage} --help", [*command, stage, "--help"]) for stage in LIGHT[: 1 if tiny else None]]
    with tempfile.TemporaryDirectory() as temporary:
        if not tiny:
            write_world(Path(temporary), IMAGES, passes=2, classes=4, width=8)
            jobs = labelling(Path(temporary), 4, here=False)
            things += [replace(job, name=f"cutsew {job.name}, {IMAGES} images") for job in jobs]
            things += [Thing(name, [sys.executable, "-c", code]) for name, code in IMPORTS.items()]
            things.append(Thing(ENCODE, [*command, *_encode(Path(temporary, "images"))]))
        rounds = measure(things, repeats, warm=0 if tiny else 1)
    bars = {"cutsew fuse --help": "at most 0.5 s", ENCODE: "at most 5 s and the weights"}
    publish(Report("startup", "Start of a job", [row(t, rounds, bars.get(t.name, "")) for t in things]), out, tiny)


def _encode(folder: Path) -> list[str | Path]:
    """Write four images and their manifest; return the words of the job that encodes them whole."""
    folder.mkdir()
    paths = write_images(folder, 4)
    seen = {"width": WIDTH, "height": HEIGHT, "bytes": 160000, "digest": [inspect(path).digest for path in paths]}
    names = {"id": [path.stem for path in paths], "path": [str(path) for path in paths]}
    write_manifest(folder / "images.parquet", pd.DataFrame(names | seen | {"split": "train", "shard": 0}))
    tiny = {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 96}
    config = {"classes": ["one", "two"], "teacher": {"kind": "open_clip", "open_clip": tiny}}
    settings = json.dumps(Plan(config).settings(DEFAULT, "encode"))
    return ["encode", folder / "images.parquet", folder / "views.zarr", "--shard", "0", "--settings", settings]


if __name__ == "__main__":
    typer.run(main)
