"""All of it beside the published procedure, written plainly (baseline.py): cutting, training, five alphas, five rates.

Ours is `snakemake` as a user types it, with the start of every job; theirs is one script for each thing. Same photos,
of the demo, same weights, sizes and epochs.

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
from tables import Report, publish, ratio, row, total

RUN = Path("results", "field", "default")
ALPHAS = (0.1, 0, 0.05, 0.5, 1)
RATES = (1e-3, 2e-4, 5e-4, 2e-3, 5e-3)
PLAIN = ROOT / "benchmarks" / "baseline.py"


def main(
    tiny: Tiny = False,
    repeats: Repeats = REPEATS,
    out: Out = RESULTS,
    photos: Annotated[int, typer.Option(help="Photos to label and to train on.")] = 400,
    epochs: Annotated[int, typer.Option(help="Of the training.")] = 10,
    cores: Annotated[int, typer.Option(help="Cores of snakemake.")] = 2,
) -> None:
    """Measure both, in turns."""
    if tiny:
        photos, epochs, repeats = 12, 1, 1
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        things = _things(home, photos, epochs, cores, tiny)
        rounds = measure(things, repeats, warm=0)
    for name in ("cutting", "training"):
        rounds[f"five {name}s, plain"] = [
            type(run)(5 * run.wall, 5 * run.cpu, run.rss) for run in rounds[f"{name}, plain"]
        ]
    rounds["five alphas, ours"] = total("", ["cutting, ours", "four more alphas, ours"], rounds).runs
    rounds["five rates, ours"] = total("", ["training, ours", "four more rates, ours"], rounds).runs
    pairs = {
        "cutting, plain / ours": ("cutting, plain", "cutting, ours"),
        "training, plain / ours": ("training, plain", "training, ours"),
        "five alphas, plain and nothing kept / ours": ("five cuttings, plain", "five alphas, ours"),
        "five alphas, plain that keeps its answers / ours": ("five alphas, plain, answers kept", "five alphas, ours"),
        "five learning rates, plain / ours": ("five trainings, plain", "five rates, ours"),
    }
    ratios = [
        ratio(f"{name} ({of})", *both, rounds, of)  # type: ignore[arg-type]
        for name, both in pairs.items()
        for of in ("wall", "cpu")
    ]
    conditions = {"photos": photos, "passes": 1 if tiny else 20, "epochs": epochs, "cores": cores}
    rows = [row(thing, rounds) for thing in things]
    publish(Report("field", "Beside the published procedure", rows, ratios, conditions), out, tiny)


def _things(home: Path, photos: int, epochs: int, cores: int, tiny: bool) -> list[Thing]:
    """Make a run up to its labels, and say what to measure in its folder."""
    raw = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    raw["dataset"]["name"] = "field"
    raw |= {"demo": {"train": photos, "test": 4}, "cut": {"passes": 1 if tiny else 20}}
    raw["select"]["top_k"] = max(1, photos // 60)
    raw["train"]["epochs"] = epochs
    configs = {"one": raw}
    configs["alphas"] = raw | {"runs": {f"alpha-{value}": {"fuse.alpha": value} for value in ALPHAS[1:]}}
    configs["rates"] = raw | {"runs": {f"lr-{value}": {"train.lr_adapter": value} for value in RATES[1:]}}
    for name, content in configs.items():
        (home / f"{name}.yaml").write_text(yaml.safe_dump(content))

    def ours(config: str, *targets: str | Path) -> list[str | Path]:
        snakemake: list[str | Path] = [Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "Snakefile"]
        where = ["--directory", home, "--cores", str(cores), "--configfile", home / f"{config}.yaml"]
        return [*snakemake, *targets, *where]

    def plain(command: str, *options: str) -> list[str | Path]:
        return [sys.executable, PLAIN, command, home / RUN, "--config", home / "one.yaml", *options]

    def forget(*names: str) -> None:
        for path in (path for name in names for path in (home / RUN.parent).glob(name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    run_once(Thing("labels to train on", ours("one", RUN / "pseudo.zarr/zarr.json", RUN / "patches.parquet")))
    trained = ("adapter.*", "model.yaml", "refined.*", "history.csv")
    fused = [RUN.parent / f"alpha-{value}" / "fused.zarr/zarr.json" for value in ALPHAS[1:]]
    adapters = [RUN.parent / f"lr-{value}" / "adapter.safetensors" for value in RATES[1:]]
    cut = lambda: forget("default/views.*", "default/logits.*", "default/fused.*", "alpha-*")  # noqa: E731
    train = lambda: forget("features", *(f"*/{name}" for name in trained))  # noqa: E731
    kept = [word for value in ALPHAS for word in ("--alpha", str(value))]
    paths = "photo and pass"
    return [
        Thing("cutting, plain", plain("cut"), units=photos * 21, unit=paths),
        Thing("cutting, ours", ours("one", RUN / "fused.zarr/zarr.json"), cut, photos * 21, paths),
        Thing("five alphas, plain, answers kept", plain("cut", *kept)),
        Thing("four more alphas, ours", ours("alphas", *fused)),
        Thing("training, plain", plain("train"), units=photos * epochs, unit="sewn photo"),
        Thing("training, ours", ours("one", RUN / "adapter.safetensors"), train, photos * epochs, "sewn photo"),
        Thing("four more rates, ours", ours("rates", *adapters)),
    ]


if __name__ == "__main__":
    typer.run(main)
