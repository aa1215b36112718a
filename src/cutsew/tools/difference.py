"""Tool difference: how much better one run is than another, and how sure that is."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cutsew.artefacts.outcome import SPLIT_STAGES
from cutsew.audit.run import Run
from cutsew.errors import UserError
from cutsew.numerics.bootstrap import difference as measured

Runs = list[Path]


def difference(
    first: Annotated[Path, typer.Argument(help="A run's folder; further seeds of it with --first.")],
    second: Annotated[Path, typer.Argument(help="Another's of the same photos; further seeds with --second.")],
    more_first: Annotated[Runs | None, typer.Option("--first", help="Another seed of the first run.")] = None,
    more_second: Annotated[Runs | None, typer.Option("--second", help="Another seed of the second run.")] = None,
    stage: Annotated[str, typer.Option(help="student, or a stage of the labels such as fused or refined.")] = "student",
    draws: Annotated[int, typer.Option(min=100, help="Draws of photos with replacement.")] = 1000,
) -> None:
    """Measure the second run's mAP less the first's, with a 95 % interval over photos (paired bootstrap)."""
    firsts, seconds = [Run(p) for p in (first, *(more_first or []))], [Run(p) for p in (second, *(more_second or []))]
    split = "test" if stage in SPLIT_STAGES["test"] and firsts[0].ids("test") else "train"
    ids, classes = firsts[0].ids(split), firsts[0].classes
    for run in (*firsts, *seconds):
        if stage not in run.outcomes:
            raise UserError(f"{run.folder}: has no stage {stage}; it has {', '.join(run.outcomes)}")
        if run.ids(split) != ids or run.classes != classes:
            raise UserError(f"{run.folder}: is of other photos or classes than {first}; name runs of one dataset")
    truth = firsts[0].truth(ids)
    if truth is None or not (truth >= 0).any():
        raise UserError(f"{first}: has no true labels of its {split} photos, so nothing says which run is better")
    before, after = ([run.outcomes[stage].read(ids) for run in runs] for runs in (firsts, seconds))
    found = measured(truth, before, after, draws=draws)
    counts = f"{len(firsts)} and {len(seconds)} runs, {np.count_nonzero((truth >= 0).any(axis=1))} {split} photos"
    typer.echo(f"{stage}: {found.points:+.2f} [{found.low:+.2f}, {found.high:+.2f}] points of mAP ({counts})")
