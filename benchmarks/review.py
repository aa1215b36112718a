"""What correcting the images that `cutsew next` chooses buys, against as many random ones.

python benchmarks/review.py [CONFIG] [--images 100] [--seeds 9,10,11] [--method cutsew]

An oracle corrects all labels of the chosen training images. The config's dataset must have true labels; the demo's has.
Runs the workflow in the working folder: one run to choose from, then two trainings a seed, which share what they can;
random images are redrawn for each seed. Prints a table: mean and standard deviation over seeds. It measures labels and
no times, so `make bench` leaves it out. Two seeds of 120 training images take three CPU minutes.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
import yaml

from common import ROOT
from cutsew.audit.label_export import choose
from cutsew.audit.review_queue import Reviewed, queue
from cutsew.audit.run import Run
from cutsew.method.random import keyed_rng

MEASURES = ("mAP", "mAP_10", "CF1", "OF1")


def main(
    config: Annotated[Path, typer.Argument(help="Config file.")] = ROOT / "config" / "config.yaml",
    *,
    images: Annotated[int, typer.Option(min=1, help="Images that the oracle corrects.")] = 100,
    seeds: Annotated[str, typer.Option(help="Seeds of training and of the random images.")] = "9,10,11",
    method: Annotated[str | None, typer.Option(help="The config's method, replaced.")] = None,
) -> None:
    """Measure what corrections of chosen images buy, against those of random ones."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) | ({"method": method} if method else {})
    work, numbers = Path("review"), [int(text) for text in seeds.split(",")]
    work.mkdir(exist_ok=True)
    plain = {f"none-{seed}": {"train.seed": seed} for seed in numbers}
    results = Path("results", settings["dataset"]["name"])
    snakemake(work, settings | {"runs": plain}, [results / name / "metrics.csv" for name in ("default", *plain)])
    run = Run(results / "default")
    drawn = {"next": dict.fromkeys(numbers, queue(Reviewed.of(run), images, "train")["id"].tolist())}
    ids = run.ids("train")
    drawn["random"] = {s: keyed_rng("review", s).choice(ids, min(images, len(ids)), replace=False) for s in numbers}
    result: list[dict[str, Any]] = []
    runs = dict(plain)
    for kind, lists in drawn.items():
        for seed, names in lists.items():
            file = work / f"{kind}-{seed}.csv"
            wrong = oracle(run, list(names), file)
            runs[f"{kind}-{seed}"] = {"train.seed": seed, "labels.overrides": str(file)}
            result.append({"corrected": kind, "seed": seed, "labels found wrong": wrong})
    snakemake(work, settings | {"runs": runs}, [results / name / "metrics.csv" for name in runs])
    result += [{"corrected": "none", "seed": seed, "labels found wrong": 0} for seed in numbers]
    for row in result:
        metrics = pd.read_csv(results / f"{row['corrected']}-{row['seed']}" / "metrics.csv")
        student = metrics[(metrics["stage"] == "student") & (metrics["split"] == "test")].iloc[0]
        row |= {name: student[name] for name in MEASURES}
    table = pd.DataFrame(result)
    typer.echo(table.to_string(index=False, float_format=lambda x: f"{x:.2f}"))
    spread = table.drop(columns="seed").groupby("corrected", sort=False).agg(["mean", "std"])
    typer.echo(spread.to_string(float_format=lambda x: f"{x:.2f}"))


def oracle(run: Run, names: list[str], file: Path) -> int:
    """Write all true labels of some images as corrections; return how many labels of the run are wrong in them."""
    truth = run.truth(names)
    if truth is None:
        sys.exit("the run has no true labels, so nobody knows what to correct")
    rows = [
        (n, c, int(truth[i, k])) for i, n in enumerate(names) for k, c in enumerate(run.classes) if truth[i, k] >= 0
    ]
    pd.DataFrame(rows, columns=["image", "class", "present"]).to_csv(file, index=False)
    labels = choose(run, None, "train")
    named = pd.concat([pd.DataFrame(batch.named, index=batch.images["id"]) for batch in labels.batches()])
    return int(((named.loc[names].to_numpy() != (truth == 1)) & (truth >= 0)).sum())


def snakemake(work: Path, settings: dict[str, Any], targets: list[Path]) -> None:
    """Run the workflow up to some files."""
    file = work / "config.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
    command = shutil.which("snakemake") or str(Path(sys.executable).with_name("snakemake"))
    words = ["--snakefile", ROOT / "workflow" / "Snakefile", "--cores", "all", "--configfile", file, "--", *targets]
    subprocess.run([command, *map(str, words)], check=True)


if __name__ == "__main__":
    typer.run(main)
