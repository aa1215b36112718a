"""Tool difference: how much better one run is than another, and how sure that is."""

from pathlib import Path
from typing import Annotated

import typer

from cutsew.audit.compare_runs import difference as measured
from cutsew.audit.compare_runs import split_of
from cutsew.audit.run import Run
from cutsew.errors import UserError

Runs = list[Path]


def difference(
    first: Annotated[Path, typer.Argument(help="A run's folder; further seeds of it with --first.")],
    second: Annotated[Path, typer.Argument(help="Another's of the same photos; further seeds with --second.")],
    more_first: Annotated[Runs | None, typer.Option("--first", help="Another seed of the first run.")] = None,
    more_second: Annotated[Runs | None, typer.Option("--second", help="Another seed of the second run.")] = None,
    stage: Annotated[
        str, typer.Option(help="student, tiles, ensemble, or a stage of the labels such as fused or refined.")
    ] = "student",
    positives: Annotated[int, typer.Option(min=1, help="Only classes with at least this many positive photos.")] = 1,
    draws: Annotated[int, typer.Option(min=100, help="Draws of photos with replacement.")] = 1000,
) -> None:
    """Measure the second run's mAP less the first's, with a 95 % interval over photos (paired bootstrap).

    Tiles and ensemble are held against the student of a run that has none.
    """
    firsts, seconds = [Run(p) for p in (first, *(more_first or []))], [Run(p) for p in (second, *(more_second or []))]
    split = split_of(firsts[0], stage)
    told = measured(firsts, seconds, stage, split, draws, positives)
    if told is None:
        truth = f"class with {positives} positives or more among" if positives > 1 else "true labels of"
        raise UserError(f"{first}: has no {truth} its {split} images, so the runs cannot be compared")
    found = told.difference
    counts = f"{len(firsts)} and {len(seconds)} runs, {told.photos} {split} photos, {told.classes} classes"
    typer.echo(f"{stage}: {found.points:+.2f} [{found.low:+.2f}, {found.high:+.2f}] points of mAP ({counts})")
