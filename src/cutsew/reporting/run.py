"""A finished run as the report sees it: its photos, its stages split by split, its truth."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.artefacts.corrections import read_corrections
from cutsew.artefacts.outcome import EPSILON, FINAL, REFERENCE, Outcome, read_truth
from cutsew.numerics.override import LEFT, override

Floats = npt.NDArray[np.floating[Any]]


class Run:
    """What there is to show.

    Args:
        images: the manifest, with `row`.
        outcomes: the stages' logits, by stage.
        metrics: metrics.csv: which stages were measured on which split.
        threshold: probability from which a class counts as named.
        labels: labels.parquet, None where there is no truth.
        corrections: corrections.parquet, None where no human corrected labels.

    """

    def __init__(
        self,
        images: pd.DataFrame,
        outcomes: Mapping[str, Outcome],
        metrics: pd.DataFrame,
        threshold: float,
        labels: Path | None = None,
        corrections: Path | None = None,
    ) -> None:
        self.images = images
        self.classes: list[str] = next(iter(outcomes.values())).classes
        self.threshold = threshold
        self.stages = stages_of(metrics, outcomes)
        self._outcomes = outcomes
        self._labels = labels
        self.corrections = read_corrections(corrections, self.classes) if corrections is not None else None

    @property
    def main(self) -> str:
        """The split that charts are about: the held-out photos where more than one stage was measured on them."""
        return max(self.stages, key=lambda split: (len(self.stages[split]) > 1, split == "test"))

    def shown_stages(self, split: str) -> tuple[str, ...]:
        """Name the stages that are shown of a photo: those measured, or FINAL for what a human corrected."""
        stages = self.stages.get(split, ())
        if not stages or not self.corrections:
            return stages
        return (*(stage for stage in stages if stage != "overridden"), FINAL)

    def said(self, ids: Sequence[str]) -> npt.NDArray[np.int8]:
        """Return (n, C) int8, what a human said of n photos: PRESENT, ABSENT, or LEFT for nothing."""
        if self.corrections is None:
            return np.full((len(ids), len(self.classes)), LEFT, dtype=np.int8)
        return self.corrections.said(ids)

    def photos(self, split: str) -> pd.DataFrame:
        """Return the manifest's rows of one split."""
        return self.images[self.images["split"] == split].reset_index(drop=True)

    def read(self, stage: str, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one stage's (n, C) logits of n photos."""
        return self._outcomes[stage].read(ids)

    def final(self, split: str, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, C) logits of n photos of a split: those of its last stage, with a human's corrections."""
        return override(self.read(self.stages[split][-1], ids), self.said(ids), EPSILON)[0]

    def slices(self, stage: str, ids: Sequence[str]) -> Iterator[npt.NDArray[np.float32]]:
        """Give one stage's logits of n photos slice by slice."""
        return self._outcomes[stage].slices(ids)

    def truth(self, ids: Sequence[str]) -> npt.NDArray[np.int8]:
        """Return the (n, C) truth of n photos: 1, 0, or -1 for not known, which is all of it where there is none."""
        if self._labels is None:
            return np.full((len(ids), len(self.classes)), -1, dtype=np.int8)
        return read_truth(self._labels, ids, self.classes)


def stages_of(metrics: pd.DataFrame, outcomes: Mapping[str, Outcome]) -> dict[str, tuple[str, ...]]:
    """Name the stages that were measured on each split, in the order of the pipeline, reference students left out."""
    rows = metrics[~metrics["stage"].str.startswith(REFERENCE) & metrics["stage"].isin(list(outcomes))]
    return {str(split): tuple(part["stage"]) for split, part in rows.groupby("split", sort=False)}
