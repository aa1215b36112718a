"""What snakemake costs where there is nothing to do, and where only light jobs run, on a run of COCO's size.

python benchmarks/overhead.py

The images are empty files under COCO's names and the artifacts empty too; the listing, the manifest, the jobs and what
snakemake keeps of them are as after a whole run of config/coco2014.yaml: 31 shards, 93 encoding jobs.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import typer

from common import REPEATS, RESULTS, ROOT, Out, Repeats, Thing, Tiny, measure
from cutsew.storage.manifest import shard_digests, write_manifest
from tables import Report, publish, row

COCO = {"train2014": 82_783, "val2014": 40_504}
TINY = {"train2014": 200, "val2014": 2}
SHARD_SIZE = 4096
CONFIG = ROOT / "config" / "coco2014.yaml"
MANIFEST = Path("results", "coco2014", "default", "images.parquet")


def main(tiny: Tiny = False, repeats: Repeats = REPEATS, out: Out = RESULTS) -> None:
    """Measure snakemake on a finished run."""
    images = TINY if tiny else COCO
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _begin(folder, images)
        jobs = 0 if tiny else _finish(folder)
        things = [Thing("nothing to do", _snakemake(folder, "--dry-run" if tiny else "--nocolor"))]
        if not tiny:
            things.append(Thing("import of snakemake alone", [sys.executable, "-c", "import snakemake.cli"]))
        rounds = measure(things, repeats, warm=0 if tiny else 1)
    bars = {"nothing to do": "at most 5 s"}
    rows = [row(thing, rounds, bars.get(thing.name, "")) for thing in things]
    conditions = {"images": sum(images.values()), "jobs": jobs}
    publish(Report("overhead", f"Snakemake on a finished run of {jobs} jobs", rows, conditions=conditions), out, tiny)


def _snakemake(folder: Path, *options: str) -> list[str | Path]:
    words = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        ROOT / "workflow" / "Snakefile",
        "--directory",
        folder,
        *options,
    ]
    return [*words, "--cores", "2", "--configfile", CONFIG, "--config", "dataset={root: images}"]


def _begin(folder: Path, images: dict[str, int]) -> None:
    """Write images and a manifest."""
    names = [name for part, count in images.items() for name in _write_images(folder / "images", part, count)]
    _write_manifest(folder / MANIFEST.parent, names)


def _finish(folder: Path) -> int:
    """Write every artifact and let snakemake take them as made; return the number of jobs."""
    _run(_snakemake(folder, "--touch", str(MANIFEST)))
    lines = [line.split("\t") for line in _run(_snakemake(folder, "--summary")).splitlines()]
    lines = [line for line in lines if line[0].startswith("results/")]
    for output, *_ in lines:
        path = folder / output
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text("stage,split\n")  # metrics.csv is read at the end
    stated = _run(_snakemake(folder, "--touch", "--forceall"))
    return len(set(re.findall(r"^ +log: (.+)$", stated, re.MULTILINE)))  # every job has its own


def _write_images(root: Path, part: str, count: int) -> list[str]:
    folder = root / part
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{part}.json").write_text("{}")
    names = [f"COCO_{part}_{i:012d}" for i in range(count)]
    for name in names:
        (folder / f"{name}.jpg").touch()
    return names


def _write_manifest(results: Path, names: list[str]) -> None:
    table = pd.DataFrame({"id": names, "path": [f"images/{name}.jpg" for name in names], "width": 640, "height": 480})
    table["bytes"], table["digest"] = 160_000, [f"{i:064x}" for i in range(len(names))]
    table["split"] = ["test" if "val" in name else "train" for name in names]
    table["shard"] = table.index // SHARD_SIZE
    write_manifest(results / "images.parquet", table)
    digests = shard_digests(table)
    shards = table.groupby("shard").size().rename("images").reset_index()
    shards["digest"] = shards["listed"] = shards["placed"] = [digests[shard] for shard in shards["shard"]]
    shards.to_csv(results / "shards.csv", index=False)
    for name in ("skipped.csv", "images.json"):
        (results / name).touch()


def _run(words: list[str | Path]) -> str:
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.stdout + result.stderr


if __name__ == "__main__":
    typer.run(main)
