"""How long a job takes to start: `cutsew` itself, a stage that is asked for its help, a job with next to no work.

python benchmarks/startup.py
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import typer

from after_encoding import labelling
from common import REPEATS, RESULTS, Out, Repeats, Thing, Tiny, measure
from synthetic import write_world
from tables import Report, publish, row

LIGHT = ("fuse", "score", "correct", "select", "seal", "evaluate")
"""Stages without a network in them."""
PHOTOS = 256


def main(tiny: Tiny = False, repeats: Repeats = REPEATS, out: Out = RESULTS) -> None:
    """Measure the start of python, of the command line, and of stages."""
    python = [sys.executable, "-c", "pass"]
    command = [sys.executable, "-m", "cutsew"]
    things = [Thing("python alone", python), Thing("cutsew --help", [*command, "--help"])]
    things += [Thing(f"cutsew {stage} --help", [*command, stage, "--help"]) for stage in LIGHT[: 1 if tiny else None]]
    with tempfile.TemporaryDirectory() as temporary:
        if not tiny:
            write_world(Path(temporary), PHOTOS, passes=2, classes=4, width=8)
            jobs = labelling(Path(temporary), 4, here=False)
            things += [replace(job, name=f"cutsew {job.name}, {PHOTOS} photos") for job in jobs]
        rounds = measure(things, repeats, warm=0 if tiny else 1)
    bars = {"cutsew fuse --help": "at most 0.5 s"}
    publish(Report("startup", "Start of a job", [row(t, rounds, bars.get(t.name, "")) for t in things]), out, tiny)


if __name__ == "__main__":
    typer.run(main)
