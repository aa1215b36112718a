"""Training on the demo: the first time, with another learning rate on kept features, and beside its bare backbone.

Each is the command that the workflow calls, a process of its own. The bare backbone is given as many photos as the
first training gives it, in memory, in batches of the same size and nothing else to do.

    python benchmarks/training.py
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import yaml

from common import REPEATS, RESULTS, ROOT, Out, Repeats, Thing, Tiny, measure, run_once
from cutsew.config.load import load
from cutsew.plan import Plan
from tables import Report, publish, ratio, row

RUN = Path("results", "training", "default")
BARE = """
import json, sys, torch
from cutsew.backbones import build
from cutsew.config.student import Student
settings, photos, batch = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
backbone = build(Student.model_validate(settings), "cpu")
images = torch.randint(0, 256, (batch, 3, backbone.image_size, backbone.image_size), dtype=torch.uint8)
for _ in range(photos // batch):
    backbone(images)
"""


def main(
    tiny: Tiny = False,
    repeats: Repeats = REPEATS,
    out: Out = RESULTS,
    photos: Annotated[int, typer.Option(help="Photos to train on.")] = 1200,
    epochs: Annotated[int, typer.Option(help="Of the training.")] = 10,
) -> None:
    """Measure them in turns."""
    if tiny:
        photos, epochs, repeats = 12, 3, 1
    with tempfile.TemporaryDirectory() as folder:
        things = _things(Path(folder), photos, epochs)
        rounds = measure(things, repeats, warm=0)
    names = [thing.name for thing in things]
    ratios = [
        ratio("first / another rate", names[1], names[2], rounds, "wall", "at least 5"),
        ratio("first / another rate", names[1], names[2], rounds),
        ratio("keeping features / keeping none", names[1], names[3], rounds),
        ratio(
            "backbone alone / keeping none", names[0], names[3], rounds, "wall", "at least 0.9, for a large backbone"
        ),
        ratio("backbone alone / keeping none", names[0], names[3], rounds),
    ]
    rows = [row(thing, rounds) for thing in things]
    publish(Report("training", "Training", rows, ratios, {"photos": photos, "epochs": epochs}), out, tiny)


def _things(home: Path, photos: int, epochs: int) -> list[Thing]:
    """Make a run up to its labels, and say what to measure in its folder."""
    raw = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    raw["dataset"]["name"] = "training"
    raw |= {"demo": {"train": photos, "test": 4}, "cut": {"passes": 2}}
    raw["select"]["top_k"] = max(1, photos // 60)
    raw["train"]["epochs"] = epochs
    (home / "config.yaml").write_text(yaml.safe_dump(raw))
    snakemake = [Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "Snakefile"]
    targets = [RUN / "pseudo.zarr/zarr.json", RUN / "patches.parquet"]
    where = ["--directory", home, "--cores", "2", "--configfile", home / "config.yaml"]
    run_once(Thing("labels to train on", [*snakemake, *targets, *where]))
    images = home / RUN / "images.parquet"
    _at_home(home, images)

    def train(name: str, limit: str, lr: float) -> list[str | Path]:
        settings = Plan(raw | {"train": raw["train"] | {"lr_adapter": lr}}).params("default", "train")
        made = [images, home / targets[0], home / name / "adapter.safetensors", "--patches", home / targets[1]]
        how = ["--device", "cpu", "--workers", "2", "--features", home / "features", "--cache-features", limit]
        return [sys.executable, "-m", "cutsew", "train", *made, "--settings", settings, *how]

    student = json.dumps(load(raw).student.model_dump(mode="json"))
    sew = load(raw).sew
    shown = int(photos * (1 + epochs * sew.p))  # each plain photo once, and the sewn ones
    unit = "photo and epoch"
    return [
        Thing("backbone alone", [sys.executable, "-c", BARE, student, str(shown), "16"], units=shown, unit="photo"),
        Thing("first", train("first", "auto", 1e-3), lambda: _forget(home), photos * epochs, unit),
        Thing("another learning rate", train("second", "auto", 5e-4), None, photos * epochs, unit),
        Thing("first, no features kept", train("third", "off", 1e-3), None, photos * epochs, unit),
    ]


def _forget(home: Path) -> None:
    shutil.rmtree(home / "features", ignore_errors=True)


def _at_home(home: Path, images: Path) -> None:
    """Name the photos from the root, since what is measured runs elsewhere than in the run's folder."""
    from cutsew.artefacts.manifest import read_manifest, write_manifest  # noqa: PLC0415

    table = read_manifest(images)
    write_manifest(images, table.assign(path=[str(home / path) for path in table["path"]]))


if __name__ == "__main__":
    typer.run(main)
