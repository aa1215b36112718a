"""Training on the demo: the first time, with another learning rate on kept features, and beside its bare backbone.

Each is the command that the workflow calls, a process of its own. The bare backbone is given as many photos as the
first training gives it, in memory, in batches of the same size and nothing else to do. The demo's is tiny; beside it a
ResNet-50 at 224 pixels, with random weights and one epoch, stands for the backbones of photos.

    python benchmarks/training.py
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer
import yaml
from safetensors.torch import save_file

from common import REPEATS, RESULTS, ROOT, Out, Repeats, Thing, Tiny, measure, run_once
from cutsew.compat import import_torchvision
from cutsew.config.load import load
from cutsew.plan import Plan
from tables import Report, publish, ratio, row

import_torchvision()
import timm  # noqa: E402

RUN = Path("results", "training", "default")
TARGETS = (RUN / "pseudo.zarr/zarr.json", RUN / "patches.parquet")
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
    large: Annotated[int, typer.Option(help="Photos to train a ResNet-50 on.")] = 192,
) -> None:
    """Measure them in turns."""
    if tiny:
        photos, epochs, large, repeats = 12, 3, 12, 1
    with tempfile.TemporaryDirectory() as folder:
        demo = World(Path(folder, "demo"), photos, epochs)
        student = {} if tiny else _resnet(Path(folder, "resnet50.safetensors"))
        resnet = World(Path(folder, "large"), large, 1, student)
        things = [
            demo.bare("backbone alone"),
            demo.training("first", "auto", before=demo.forget),
            demo.training("another learning rate", "auto", lr=5e-4),
            demo.training("first, no features kept", "off"),
            resnet.bare("ResNet-50 alone"),
            resnet.training("ResNet-50, no features kept", "off"),
        ]
        rounds = measure(things, repeats, warm=0)
    names = [thing.name for thing in things]
    ratios = [
        ratio("first / another rate", names[1], names[2], rounds, "wall", "at least 5"),
        ratio("first / another rate", names[1], names[2], rounds),
        ratio("keeping features / keeping none", names[1], names[3], rounds),
        ratio("backbone alone / keeping none", names[0], names[3], rounds, "wall"),
        ratio("ResNet-50 alone / keeping none", names[4], names[5], rounds, "wall", "at least 0.9"),
        ratio("ResNet-50 alone / keeping none", names[4], names[5], rounds),
    ]
    rows = [row(thing, rounds) for thing in things]
    conditions = {"photos": photos, "epochs": epochs, "photos of ResNet-50": large}
    publish(Report("training", "Training", rows, ratios, conditions), out, tiny)


class World:
    """A run of the demo up to its labels, and what trains on it."""

    def __init__(
        self, home: Path, photos: int, epochs: int, student: Mapping[str, object] = MappingProxyType({})
    ) -> None:
        """Make the run in a folder of its own; `student` replaces settings of the demo's."""
        home.mkdir()
        self.home, self.photos, self.epochs = home, photos, epochs
        raw = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
        raw["dataset"]["name"] = "training"
        raw |= {"demo": {"train": photos, "test": 4}, "cut": {"passes": 2}}
        raw["select"]["top_k"] = max(1, photos // 60)
        raw["train"]["epochs"] = epochs
        self.raw = raw | ({"student": dict(student)} if student else {})
        (home / "config.yaml").write_text(yaml.safe_dump(self.raw))
        snakemake = [Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "Snakefile"]
        where = ["--directory", home, "--cores", "2", "--configfile", home / "config.yaml"]
        run_once(Thing("labels to train on", [*snakemake, *TARGETS, *where]))
        _at_home(home, home / RUN / "images.parquet")

    def training(self, name: str, limit: str, lr: float = 1e-3, before: Callable[[], object] | None = None) -> Thing:
        """Make a training a thing to measure; `limit` is compute.cache_features."""
        settings = Plan(self.raw | {"train": self.raw["train"] | {"lr_adapter": lr}}).params("default", "train")
        labels, patches = (self.home / target for target in TARGETS)
        made = [self.home / RUN / "images.parquet", labels, self.home / name / "adapter.safetensors"]
        how = ["--device", "cpu", "--workers", "2", "--features", self.home / "features", "--cache-features", limit]
        words = [sys.executable, "-m", "cutsew", "train", *made, "--patches", patches, "--settings", settings, *how]
        return Thing(name, words, before, self.photos * self.epochs, "photo and epoch")

    def bare(self, name: str) -> Thing:
        """Make its backbone alone a thing to measure, on as many photos: the sewn ones, and once each ever plain."""
        config = load(self.raw)
        sewn = config.sew.p
        shown = int(self.photos * (self.epochs * sewn + 1 - sewn**self.epochs))
        student = json.dumps(config.student.model_dump(mode="json"))
        return Thing(name, [sys.executable, "-c", BARE, student, str(shown), "16"], units=shown, unit="photo")

    def forget(self) -> None:
        """Throw kept features away."""
        shutil.rmtree(self.home / "features", ignore_errors=True)


def _resnet(weights: Path) -> dict[str, object]:
    """Write random weights of a ResNet-50, which change no time; return the settings of a student that has it."""
    save_file(timm.create_model("resnet50").state_dict(), weights)
    return {"kind": "timm", "timm": {"model": "resnet50", "weights": str(weights), "image_size": 224}}


def _at_home(home: Path, images: Path) -> None:
    """Name the photos from the root, since what is measured runs elsewhere than in the run's folder."""
    from cutsew.artefacts.manifest import read_manifest, write_manifest  # noqa: PLC0415

    table = read_manifest(images)
    write_manifest(images, table.assign(path=[str(home / path) for path in table["path"]]))


if __name__ == "__main__":
    typer.run(main)
