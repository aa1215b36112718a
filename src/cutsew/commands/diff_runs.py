"""Tool difference: how much better one run is than another, and how sure that is."""

from pathlib import Path
from typing import Annotated

import typer

from cutsew.audit.compare_runs import difference as measured
from cutsew.audit.compare_runs import split_of
from cutsew.audit.run import Run
from cutsew.errors import UserError

Runs = list[Path]


def diff_runs(
    first: Annotated[Path, typer.Argument(help="A run's folder; further seeds of it with --first.")],
    second: Annotated[Path, typer.Argument(help="Another's of the same images; further seeds with --second.")],
    more_first: Annotated[Runs | None, typer.Option("--first", help="Another seed of the first run.")] = None,
    more_second: Annotated[Runs | None, typer.Option("--second", help="Another seed of the second run.")] = None,
    stage: Annotated[
        str, typer.Option(help="student, tiles, ensemble, or a stage of the labels such as fused or refined.")
    ] = "student",
    positives: Annotated[int, typer.Option(min=1, help="Only classes with at least this many positive images.")] = 1,
    draws: Annotated[int, typer.Option(min=100, help="Draws of images with replacement.")] = 1000,
) -> None:
    """Measure the second run's mAP less the first's, with a 95 % interval over images (paired bootstrap).

    Tiles and ensemble are held against the student of a run that has none.
    """
    firsts, seconds = [Run(p) for p in (first, *(more_first or []))], [Run(p) for p in (second, *(more_second or []))]
    split = split_of(firsts[0], stage)
    measured_difference = measured(firsts, seconds, stage, split, draws, positives)
    if measured_difference is None:
        truth = f"class with {positives} positives or more among" if positives > 1 else "true labels of"
        raise UserError(f"{first}: has no {truth} its {split} images, so the runs cannot be compared")
    difference_of_map = measured_difference.difference
    counts = (
        f"{len(firsts)} and {len(seconds)} runs, {measured_difference.images} {split} images, "
        f"{measured_difference.classes} classes"
    )
    typer.echo(
        f"{stage}: {difference_of_map.points:+.2f} [{difference_of_map.low:+.2f}, {difference_of_map.high:+.2f}] "
        f"points of mAP ({counts})"
    )
