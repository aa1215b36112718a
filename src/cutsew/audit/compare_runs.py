"""How much better runs are than others in mAP, and how sure that is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cutsew.audit.run import Run
from cutsew.errors import UserError
from cutsew.method.bootstrap import Difference
from cutsew.method.bootstrap import difference as measured
from cutsew.storage.predictions import SPLIT_STAGES, StagePredictions

FALLBACK_STAGE = {"tiles": "student", "ensemble": "student"}
"""Stage -> the one that it is held against in runs that lack it."""


class RunDifference(NamedTuple):
    """A difference, and on how many images with true labels and how many classes it was measured."""

    difference: Difference
    images: int
    classes: int


def difference(
    firsts: Sequence[Run], seconds: Sequence[Run], stage: str, split: str, draws: int = 1000, positives: int = 1
) -> RunDifference | None:
    """Measure the mAP of a stage of some runs less that of others, with a 95 % interval over images.

    Args:
        firsts: runs, alike but for their seeds.
        seconds: others on the same images.
        stage: as SPLIT_STAGES calls it.
        split: train or test.
        draws: of images with replacement.
        positives: a class counts where at least this many images of the split show it.

    Returns:
        None where nothing says which run is better: the images have no true labels, or no class has enough positives.

    Raises:
        UserError: a run lacks the stage, or is of other images or classes.

    """
    ids, classes = firsts[0].ids(split), firsts[0].classes
    for run in (*firsts, *seconds):
        if run.ids(split) != ids or run.classes != classes:
            raise UserError(
                f"{run.folder}: has other images or classes than {firsts[0].folder}; name runs of one dataset"
            )
    truth = firsts[0].truth(ids)
    if truth is None or not (truth >= 0).any():
        return None
    common = np.count_nonzero(truth == 1, axis=0) >= positives
    if not common.any():
        return None
    images, count = int(np.count_nonzero((truth >= 0).any(axis=1))), int(np.count_nonzero(common))
    before, after = ([_outcome(run, stage) for run in runs] for runs in (firsts, seconds))
    if {outcome.path for outcome in (*before, *after)} == {before[0].path}:
        return RunDifference(Difference(0.0, 0.0, 0.0), images, count)
    first, second = ([z[:, common] for z in _read(outcomes, ids)] for outcomes in (before, after))
    return RunDifference(measured(truth[:, common], first, second, draws=draws), images, count)


def split_of(run: Run, stage: str) -> str:
    """Name the split that a stage is measured on: the held-out images where there are any that it knows."""
    return "test" if stage in SPLIT_STAGES["test"] and run.ids("test") else "train"


def _read(outcomes: Sequence[StagePredictions], ids: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    """Read (n, C) logits of each run, once where all runs share them."""
    shared = len({outcome.path for outcome in outcomes}) == 1
    return [outcome.read(ids) for outcome in (outcomes[:1] if shared else outcomes)]


def stage_of(run: Run, stage: str) -> str | None:
    """Return the stage, or what it is held against where the run lacks it; None where it lacks both."""
    return next((name for name in (stage, FALLBACK_STAGE.get(stage, stage)) if name in run.outcomes), None)


def _outcome(run: Run, stage: str) -> StagePredictions:
    outcome = stage_of(run, stage)
    if outcome is None:
        raise UserError(f"{run.folder}: has no stage {stage}; it has {', '.join(run.outcomes)}")
    return run.outcomes[outcome]
