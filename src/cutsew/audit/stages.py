"""The stages of a split, read side by side slice by slice, so that memory is bounded whatever N."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.artefacts.outcome import FINAL, IMAGES_AT_ONCE, REFERENCE
from cutsew.artefacts.reading import array_of, labels_of, open_group, read_rows
from cutsew.audit.run import Run
from cutsew.numerics.fuse import WHOLE

TEACHERS = ("fused", "pseudo", "overridden", "refined")
"""Stages whose labels descend from the fusion, so that a label's winning view is known."""


class Slice(NamedTuple):
    """Up to IMAGES_AT_ONCE photos of a stage.

    Attributes:
        ids: of the n photos.
        z: (n, C) logits.
        before: (n, C) logits of the stage before; None for the first and for reference students.
        from_crop: (n, C) bool, where a crop gave the fused value; None where that says nothing of the stage.

    """

    ids: list[str]
    z: npt.NDArray[np.float32]
    before: npt.NDArray[np.float32] | None
    from_crop: npt.NDArray[np.bool_] | None


def stages_of(run: Run, split: str) -> list[tuple[str, str | None]]:
    """List the stages of a split, each with the one before; reference students have none before.

    Where a human corrected labels, FINAL is the last stage of the method.
    """
    stages = run.stages(split) + ([FINAL] if run.final is not None else [])
    found: list[tuple[str, str | None]] = list(zip(stages, [None, *stages], strict=False))
    if split == "test":
        found += [(stage, None) for stage in run.outcomes if stage.startswith(REFERENCE)]
    return found


def slices(run: Run, stage: str, before: str | None, ids: list[str]) -> Iterator[Slice]:
    """Give a stage's labels of some photos beside those of the stage before."""
    winners = _winners(run, ids) if stage in TEACHERS and run.path("fused.zarr") is not None else None
    earlier = run.outcome(before).slices(ids) if before is not None else None
    for number, z in enumerate(run.outcome(stage).slices(ids)):
        here = ids[number * IMAGES_AT_ONCE :][: len(z)]
        yield Slice(here, z, next(earlier) if earlier else None, next(winners) if winners else None)


def _winners(run: Run, ids: list[str]) -> Iterator[npt.NDArray[np.bool_]]:
    path = run.path("fused.zarr")
    assert path is not None  # noqa: S101  # slices asks for winners only where they are
    group = open_group(path)
    winner = array_of(group, "winner")
    rows = pd.Index(labels_of(group, "image")).get_indexer(pd.Index(ids))
    for start in range(0, len(rows), IMAGES_AT_ONCE):
        yield read_rows(winner, rows[start : start + IMAGES_AT_ONCE]) != WHOLE
