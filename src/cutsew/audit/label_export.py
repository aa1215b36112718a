"""The labels of a run that are given away: which stage's for which photos, read slice by slice."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.audit.run import Run, near, stages_of
from cutsew.errors import UserError
from cutsew.method.correct import LEFT, PRESENT
from cutsew.method.score import sigmoid
from cutsew.storage.label_corrections import Corrections
from cutsew.storage.manifest import SPLITS, slabs
from cutsew.storage.predictions import FINAL, IMAGES_AT_ONCE

Floats = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """Some photos' labels.

    Attributes:
        photos: n rows of the manifest.
        named: (n, C) bool, the labels.
        probabilities: (n, C) in [0, 1], the stage's own, whatever a human said.
        said: (n, C) int8, what a human said: PRESENT, ABSENT, or LEFT for nothing. It has decided `named`.

    """

    photos: pd.DataFrame
    named: npt.NDArray[np.bool_]
    probabilities: Floats
    said: npt.NDArray[np.int8]

    @property
    def confidence(self) -> Floats:
        """(n, C) in [0, 1]: 1 and 0 where a human said present and absent, else the stage's probability."""
        kept: Floats = np.where(self.said == LEFT, self.probabilities, self.said == PRESENT).astype(np.float32)
        return kept


@dataclass(frozen=True)
class Labels:
    """The labels of some photos.

    Attributes:
        run: the run.
        stages: split -> stage whose labels its photos have.
        photos: rows of the manifest, split after split; photos without finite labels are left out.
        left_out: how many those are.
        threshold: probability from which a class is a label.
        sure: stage whose probabilities stand beside the labels; None for the labels' own.
        corrections: a human's, which win over the stages; None for none.

    """

    run: Run
    stages: dict[str, str]
    photos: pd.DataFrame
    left_out: int
    threshold: float
    sure: str | None
    corrections: Corrections | None = None

    @cached_property
    def corrected(self) -> Corrections | None:
        """The corrections of the photos that are given away; None for none."""
        if self.corrections is None:
            return None
        rows = self.corrections.table["image"].isin(self.photos["id"])
        return Corrections(self.corrections.table[rows], self.classes) or None

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.run.classes

    def batches(self) -> Iterator[Batch]:
        """Give the labels slice by slice, in the order of `photos`."""
        for split, stage in self.stages.items():
            part = self.photos[self.photos["split"] == split]
            for rows in slabs(len(part), IMAGES_AT_ONCE):
                here = part.iloc[rows]
                p = self._probabilities(stage, here)
                said = np.full(p.shape, LEFT, dtype=np.int8)
                if self.corrections is not None:
                    said = self.corrections.said(here["id"].tolist())
                named = np.where(said == LEFT, p >= self.threshold, said == PRESENT)
                yield Batch(here, named, p if self.sure is None else self._probabilities(self.sure, here), said)

    def _probabilities(self, stage: str, photos: pd.DataFrame) -> Floats:
        p: Floats = sigmoid(self.run.outcomes[stage].read(photos["id"].tolist())).astype(np.float32)
        return p


def choose(
    run: Run,
    stage: str | None,
    split: str | None,
    threshold: float | None = None,
    sure: str | None = None,
    *,
    by_hand: bool = True,
) -> Labels:
    """Choose labels.

    Args:
        run: the run.
        stage: whose labels; None for the last stage of each split.
        split: train or test; None for both, as far as the stage has labels of them.
        threshold: probability from which a class is a label; None for that of evaluate.
        sure: stage whose probabilities stand beside the labels; None for the labels' own.
        by_hand: a human's corrections win over the stage.

    Raises:
        UserError: no such stage, or it has no labels of those photos.

    """
    stages: dict[str, str] = {}
    known = {name: _available(run, name) for name in SPLITS if run.ids(name)}
    for name, there in known.items():
        wanted = stage or (run.stages(name)[-1] if split is None or split == name else None)
        if wanted in there and (sure is None or sure in there) and split in (None, name):
            stages[name] = str(wanted)
    if not stages:
        _refuse(run, stage, split, sure, known)
    parts = [_finite(run, run.images[run.images["split"] == name], [there, sure]) for name, there in stages.items()]
    photos = pd.concat(parts, ignore_index=True)
    left_out = sum(len(run.ids(name)) for name in stages) - len(photos)
    corrections = run.corrections if by_hand else None
    return Labels(run, stages, photos, left_out, run.threshold if threshold is None else threshold, sure, corrections)


def _available(run: Run, split: str) -> list[str]:
    """Name the stages that have labels of a split's photos; the teacher's are there of held-out ones too."""
    named = [name for name, _ in stages_of(run, split) if name != FINAL]
    return [*named, *(name for name in ("pseudo",) if name in run.outcomes and name not in named)]


def _refuse(run: Run, stage: str | None, split: str | None, sure: str | None, known: dict[str, list[str]]) -> None:
    every = list(dict.fromkeys(name for there in known.values() for name in there))
    for option, given in (("--stage", stage), ("--probabilities", sure)):
        if given is not None and given not in every:
            raise UserError(f"{option}: {given} is no stage of {run.folder.name}{near(given, every)}")
    here = f"{split} photos" if split else "photos that have both"
    there = "; ".join(f"{name}: {', '.join(names)}" for name, names in known.items())
    raise UserError(f"--stage: no labels of {stage or 'a stage'} for {here}; there are {there}")


def _finite(run: Run, photos: pd.DataFrame, stages: list[str | None]) -> pd.DataFrame:
    """Leave out photos without finite labels: held-out ones that a teacher of kind scores did not score."""
    known = np.ones(len(photos), dtype=bool)
    for stage in stages:
        if stage is not None:
            parts = [np.isfinite(z).all(axis=1) for z in run.outcomes[stage].slices(photos["id"].tolist())]
            known &= np.concatenate(parts)
    return photos[known]
