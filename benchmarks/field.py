"""All of it next to the published procedure, written plainly (baseline.py): cutting, training, five alphas, five rates.

Ours is `snakemake` as a user types it, with the start of every job; theirs is one script for each thing. Same images,
as large as VOC's, same weights (RN50's, random: they change no time), sizes and epochs.

    python benchmarks/field.py
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import yaml

from common import REPEATS, RESULTS, ROOT, Out, Repeats, Thing, Tiny, measure, run_once
from images import write_images
from synthetic import write_clip
from tables import Report, publish, ratio, row, total

RUN = Path("results", "field", "default")
ALPHAS = (0.1, 0, 0.05, 0.5, 1)
RATES = (1e-3, 2e-4, 5e-4, 2e-3, 5e-3)
PLAIN = ROOT / "benchmarks" / "baseline.py"


def main(
    tiny: Tiny = False,
    repeats: Repeats = REPEATS,
    out: Out = RESULTS,
    images: Annotated[int, typer.Option(help="Images to label and to train on.")] = 24,
    epochs: Annotated[int, typer.Option(help="Of the training.")] = 5,
    cores: Annotated[int, typer.Option(help="Cores of snakemake.")] = 2,
) -> None:
    """Measure both, in turns."""
    if tiny:
        images, epochs, repeats = 12, 1, 1
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        things = _things(home, images, epochs, cores, tiny)
        rounds = measure(things, repeats, warm=0)
    for name in ("cutting", "training"):
        rounds[f"five {name}s, plain"] = [
            type(run)(5 * run.wall, 5 * run.cpu, run.rss) for run in rounds[f"{name}, plain"]
        ]
    rounds["five alphas, ours"] = total("", ["cutting, ours", "four more alphas, ours"], rounds).runs
    rounds["five rates, ours"] = total("", ["training, ours", "four more rates, ours"], rounds).runs
    pairs = {
        "cutting, plain / ours": ("cutting, plain", "cutting, ours"),
        "cutting, plain / ours on OpenVINO": ("cutting, plain", "cutting, ours on OpenVINO"),
        "training, plain / ours": ("training, plain", "training, ours"),
        "five alphas, plain and nothing kept / ours": ("five cuttings, plain", "five alphas, ours"),
        "five alphas, plain that keeps its answers / ours": ("five alphas, plain, answers kept", "five alphas, ours"),
        "five learning rates, plain / ours": ("five trainings, plain", "five rates, ours"),
    }
    ratios = [
        ratio(name, *both, rounds, of)  # type: ignore[arg-type]
        for name, both in pairs.items()
        for of in ("wall", "cpu")
    ]
    conditions = {"images": images, "passes": 1 if tiny else 20, "epochs": epochs, "cores": cores}
    rows = [row(thing, rounds) for thing in things]
    publish(Report("field", "Compared with the published procedure", rows, ratios, conditions), out, tiny)


def _write_configs(home: Path, images: int, epochs: int, tiny: bool) -> None:
    """Write images, weights and a config file for each thing that is run."""
    (home / "images").mkdir()
    write_images(home / "images", images)
    named = write_clip(home / "clip.safetensors", *(("cutsew-tiny", 32) if tiny else ("RN50", 224)))
    raw = yaml.safe_load((ROOT / "config" / "demo-paper.yaml").read_text())
    raw["dataset"] = {"name": "field", "kind": "folder", "root": "images"}
    raw |= {model: {"kind": "open_clip", "open_clip": named} for model in ("teacher", "student")}
    raw["cut"] = {"passes": 1 if tiny else 20}
    raw["select"]["top_k"] = max(1, images // 60)
    raw["train"]["epochs"] = epochs
    runs: dict[str, dict[str, dict[str, object]]] = {
        "one": {},
        "alphas": {f"alpha-{value}": {"fuse.alpha": value} for value in ALPHAS[1:]},
        "rates": {f"lr-{value}": {"train.lr_adapter": value} for value in RATES[1:]},
        "openvino": {"openvino": {"teacher.runtime": "openvino"}},
    }
    for name, variants in runs.items():
        (home / f"{name}.yaml").write_text(yaml.safe_dump(raw | {"runs": variants}))


def _things(home: Path, images: int, epochs: int, cores: int, tiny: bool) -> list[Thing]:
    """Make a run up to its labels, and say what to measure in its folder."""
    _write_configs(home, images, epochs, tiny)

    def ours(config: str, *targets: Path) -> list[str | Path]:
        snakemake: list[str | Path] = [
            Path(sys.executable).with_name("snakemake"),
            "--snakefile",
            ROOT / "workflow" / "Snakefile",
        ]
        where = ["--directory", home, "--cores", str(cores), "--configfile", home / f"{config}.yaml"]
        return [*snakemake, *targets, *where]

    def plain(command: str, *options: str) -> list[str | Path]:
        return [sys.executable, PLAIN, command, home / RUN, "--config", home / "one.yaml", *options]

    def forget(*names: str) -> None:
        for path in (path for name in names for path in (home / RUN.parent).glob(name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    run_once(Thing("labels to train on", ours("one", RUN / "pseudo.zarr/zarr.json", RUN / "patches.parquet")))
    fused, adapter = Path("fused.zarr/zarr.json"), Path("adapter.safetensors")
    trained = ("adapter.*", "model.yaml", "refined.*", "history.csv")
    cut = lambda: forget("default/views.*", "default/logits.*", "default/fused.*", "alpha-*", "openvino")  # noqa: E731
    train = lambda: forget("features", *(f"*/{name}" for name in trained))  # noqa: E731
    kept = [word for value in ALPHAS for word in ("--alpha", str(value))]
    views, sewn = images * (2 if tiny else 21), images * epochs
    paths = "image and pass"
    return [
        Thing("cutting, plain", plain("cut"), units=views, unit=paths),
        Thing("cutting, ours", ours("one", RUN / fused), cut, views, paths),
        Thing("cutting, ours on OpenVINO", ours("openvino", RUN.parent / "openvino" / fused), units=views, unit=paths),
        Thing("five alphas, plain, answers kept", plain("cut", *kept)),
        Thing("four more alphas, ours", ours("alphas", *(RUN.parent / f"alpha-{v}" / fused for v in ALPHAS[1:]))),
        Thing("training, plain", plain("train"), units=sewn, unit="sewn image"),
        Thing("training, ours", ours("one", RUN / adapter), train, sewn, "sewn image"),
        Thing("four more rates, ours", ours("rates", *(RUN.parent / f"lr-{v}" / adapter for v in RATES[1:]))),
    ]


if __name__ == "__main__":
    typer.run(main)
