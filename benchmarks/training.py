"""Training: the first time, with another learning rate on cached features, and relative to its bare backbone.

Each is the command that the workflow calls, a process of its own. The bare backbone is given as many images as the
first training gives it, in memory, in batches of the same size and nothing else to do. The demo's is tiny; next to it
stand an RN50 at 224 pixels and the paper's RN101 at 448, with random weights, one epoch and images as large as VOC's.

    python benchmarks/training.py
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from common import REPEATS, RESULTS, ROOT, Out, Repeats, Thing, Tiny, measure, run_once
from cutsew.config.loading import load
from cutsew.pipeline.plan import Plan
from images import write_images
from synthetic import write_clip
from tables import Report, publish, ratio, row

RUN = Path("results", "training", "default")
TARGETS = (RUN / "pseudo.zarr/zarr.json", RUN / "patches.parquet")
BARE = """
import json, sys, torch
from cutsew.models.backbones import build
from cutsew.config.networks import parse_student
settings, images, batch = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
backbone = build(parse_student(settings), "cpu")
images = torch.randint(0, 256, (batch, 3, backbone.image_size, backbone.image_size), dtype=torch.uint8)
for _ in range(images // batch):
    backbone(images)
"""


LARGE = {"RN50": (224, 192), "RN101": (448, 64)}
"""open_clip's models that stand for the backbones of images: side of their input in pixels, images to train on."""


def main(
    tiny: Tiny = False,
    repeats: Repeats = REPEATS,
    out: Out = RESULTS,
    images: Annotated[int, typer.Option(help="Images of the demo to train on.")] = 1200,
    epochs: Annotated[int, typer.Option(help="Of the demo's training.")] = 10,
) -> None:
    """Measure them in turns."""
    if tiny:
        images, epochs, repeats = 12, 3, 1
    with tempfile.TemporaryDirectory() as folder:
        demo = World(Path(folder, "demo"), images, epochs)
        first, again, uncached = "first", "another learning rate", "first, no features kept"
        things = [
            demo.bare("backbone alone"),
            demo.training(first, "auto", before=demo.forget),
            demo.training(again, "auto", lr=5e-4),
            demo.training(uncached, "off"),
        ]
        large = {"cutsew-tiny": (32, 16)} if tiny else LARGE
        for model, (side, count) in large.items():
            world = World(Path(folder, model), count, 1, _large(Path(folder), model, side, count))
            things += [world.bare(f"{model} alone"), world.training(f"{model}, no features kept", "off")]
        rounds = measure(things, repeats, warm=0)
    ratios = [
        ratio("first / another rate", first, again, rounds, "wall", "at least 5"),
        ratio("first / another rate", first, again, rounds),
        ratio("keeping features / keeping none", first, uncached, rounds),
        ratio("backbone alone / keeping none", "backbone alone", uncached, rounds, "wall"),
    ]
    for model in large:
        pair = f"{model} alone", f"{model}, no features kept"
        ratios.append(ratio(f"{model} alone / keeping none", *pair, rounds, "wall", "at least 0.9"))
        ratios.append(ratio(f"{model} alone / keeping none", *pair, rounds))
    rows = [row(thing, rounds) for thing in things]
    conditions = {thing.name: thing.units for thing in things} | {"epochs of the demo": epochs}
    publish(Report("training", "Training", rows, ratios, conditions), out, tiny)


class World:
    """A run up to its labels, and what trains on it."""

    def __init__(self, home: Path, images: int, epochs: int, changes: Mapping[str, Any] | None = None) -> None:
        """Make the run in a folder of its own, with the demo's settings where `changes` has no others."""
        home.mkdir()
        self.home, self.images, self.epochs = home, images, epochs
        raw = yaml.safe_load((ROOT / "config" / "demo-paper.yaml").read_text())
        raw["dataset"] |= {"name": "training", "demo": {"train": images, "test": 4}}
        raw |= {"cut": {"passes": 2}}
        raw["select"]["top_k"] = max(1, images // 60)
        raw["train"]["epochs"] = epochs
        self.raw = raw | dict(changes or {})
        (home / "config.yaml").write_text(yaml.safe_dump(self.raw))
        snakemake = [Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "workflow" / "Snakefile"]
        where = ["--directory", home, "--cores", "2", "--configfile", home / "config.yaml"]
        run_once(Thing("labels to train on", [*snakemake, *TARGETS, *where]))
        _at_home(home, home / RUN / "images.parquet")

    def training(self, name: str, limit: str, lr: float = 1e-3, before: Callable[[], object] | None = None) -> Thing:
        """Make a training a thing to measure; `limit` is compute.cache_features."""
        settings = Plan(self.raw | {"train": self.raw["train"] | {"lr_adapter": lr}}).params("default", "train")
        labels, patches = (self.home / target for target in TARGETS)
        result = [self.home / RUN / "images.parquet", labels, self.home / name / "adapter.safetensors"]
        how = ["--device", "cpu", "--workers", "2", "--features", self.home / "features", "--cache-features", limit]
        words = [sys.executable, "-m", "cutsew", "train", *result, "--patches", patches, "--settings", settings, *how]
        return Thing(name, words, before, self.images * self.epochs, "image and epoch")

    def bare(self, name: str) -> Thing:
        """Make its backbone alone a thing to measure, on as many images: the sewn ones, and once each ever plain."""
        config = load(self.raw)
        sewn = config.sew.p
        shown = int(self.images * (self.epochs * sewn + 1 - sewn**self.epochs))
        student = json.dumps(config.student.model_dump(mode="json"))
        return Thing(name, [sys.executable, "-c", BARE, student, str(shown), "16"], units=shown, unit="photo")

    def forget(self) -> None:
        """Throw cached features away."""
        shutil.rmtree(self.home / "features", ignore_errors=True)


def _large(folder: Path, model: str, side: int, images: int) -> dict[str, Any]:
    """Write images as large as VOC's and random weights, which change no time; return the settings that name them."""
    root = folder / f"images of {model}"
    root.mkdir()
    write_images(root, images)
    student = {"kind": "open_clip", "open_clip": write_clip(folder / f"{model}.safetensors", model, side)}
    return {"dataset": {"name": "training", "kind": "folder", "root": str(root)}, "student": student}


def _at_home(home: Path, images: Path) -> None:
    """Name the images from the root, since what is measured runs elsewhere than in the run's folder."""
    from cutsew.storage.manifest import read_manifest, write_manifest  # noqa: PLC0415

    table = read_manifest(images)
    write_manifest(images, table.assign(path=[str(home / path) for path in table["path"]]))


if __name__ == "__main__":
    typer.run(main)
