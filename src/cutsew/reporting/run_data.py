"""A finished run as the report reads it, and its counts.

- A finished run as the report sees it: its images, its stages split by split, its truth.
- What the charts count over all images of a split, slice by slice, so that only a slice is in memory.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.method.correct import LEFT, override
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import named
from cutsew.storage.image_ids import Ids
from cutsew.storage.label_corrections import read_corrections
from cutsew.storage.manifest import batched_slices, ids_of
from cutsew.storage.predictions import (
    EPSILON,
    FINAL,
    REFERENCE,
    StagePredictions,
    images_at_once,
    read_truth,
)
from cutsew.storage.result_tables import RunThresholds

Floats = npt.NDArray[np.floating[Any]]


class Run:
    """What there is to show.

    Args:
        images: the manifest, with `row`.
        outcomes: the stages' logits, by stage.
        metrics: metrics.csv: which stages were measured on which split.
        thresholds: decision thresholds of the stages.
        labels: truth.parquet, None where there is no truth.
        corrections: corrections.parquet, None where no human corrected labels.

    """

    def __init__(
        self,
        images: pd.DataFrame,
        outcomes: Mapping[str, StagePredictions],
        metrics: pd.DataFrame,
        thresholds: RunThresholds,
        labels: Path | None = None,
        corrections: Path | None = None,
    ) -> None:
        self.images = images
        self._ids: dict[str, pd.Index] = {}
        self.classes: list[str] = next(iter(outcomes.values())).classes
        self.thresholds = thresholds
        self.stages = stages_of(metrics, outcomes)
        self._outcomes = outcomes
        self._labels = labels
        self.corrections = read_corrections(corrections, self.classes) if corrections is not None else None

    @property
    def main(self) -> str:
        """The split that charts are about: the held-out images where more than one stage was measured on them."""
        return max(self.stages, key=lambda split: (len(self.stages[split]) > 1, split == "test"))

    def shown_stages(self, split: str) -> tuple[str, ...]:
        """Name the stages that are shown of an image: those measured, or FINAL for what a human corrected."""
        stages = self.stages.get(split, ())
        if not stages or not self.corrections:
            return stages
        return (*(stage for stage in stages if stage != "overridden"), FINAL)

    def thresholds_of(self, stage: str, split: str) -> npt.NDArray[np.float64]:
        """Return (C,) thresholds of a stage; FINAL has those of the last stage of a split."""
        return self.thresholds.of(self.stages[split][-1] if stage == FINAL else stage, len(self.classes))

    def said(self, ids: Sequence[str]) -> npt.NDArray[np.int8]:
        """Return (n, C) int8, what a human said of n images: PRESENT, ABSENT, or LEFT for nothing."""
        if self.corrections is None:
            return np.full((len(ids), len(self.classes)), LEFT, dtype=np.int8)
        return self.corrections.said(ids)

    def images_of(self, split: str) -> pd.DataFrame:
        """Return the manifest's rows of one split."""
        return self.images[self.images["split"] == split].reset_index(drop=True)

    def ids_of(self, split: str) -> pd.Index:
        """Return the ids of one split's images."""
        if split not in self._ids:
            self._ids[split] = ids_of(self.images, split)
        return self._ids[split]

    def read(self, stage: str, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one stage's (n, C) logits of n images."""
        return self._outcomes[stage].read(ids)

    def final(self, split: str, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, C) logits of n images of a split: those of its last stage, with a human's corrections."""
        return override(self.read(self.stages[split][-1], ids), self.said(ids), EPSILON)[0]

    def slices(self, stage: str, ids: Ids) -> Iterator[npt.NDArray[np.float32]]:
        """Give one stage's logits of n images slice by slice."""
        return self._outcomes[stage].slices(ids)

    def truth(self, ids: Ids) -> npt.NDArray[np.int8]:
        """Return the (n, C) truth of n images: 1, 0, or -1 for not known, which is all of it where there is none."""
        if self._labels is None:
            return np.full((len(ids), len(self.classes)), -1, dtype=np.int8)
        return read_truth(self._labels, ids, self.classes)


def stages_of(metrics: pd.DataFrame, outcomes: Mapping[str, StagePredictions]) -> dict[str, tuple[str, ...]]:
    """Name the stages that were measured on each split, in the order of the pipeline, reference students left out."""
    rows = metrics[~metrics["stage"].str.startswith(REFERENCE) & metrics["stage"].isin(list(outcomes))]
    return {str(split): tuple(part["stage"]) for split, part in rows.groupby("split", sort=False)}


Truth = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]

MOST_COUNTED = 10
"""Labels per image that are counted one by one; images with more share a last bin."""

EDGES: Floats = np.linspace(-14, 14, 57)
"""Edges of the logits' histogram; what lies beyond falls into the outer bins (clamped probabilities end at 13.8)."""

BINS = 10
"""Bins of the calibration, of equal width over [0, 1]."""


@dataclass
class Labels:
    """Sets of labels, counted.

    Attributes:
        sizes: (MOST_COUNTED + 2,) images with 0, 1, ... labels; the last bin holds those with more.
        counts: (C,) images that have each class.

    """

    sizes: Ints
    counts: Ints

    @classmethod
    def of(cls, classes: int) -> "Labels":
        """Begin with nothing counted."""
        return cls(np.zeros(MOST_COUNTED + 2, dtype=np.int64), np.zeros(classes, dtype=np.int64))

    def add(self, has: npt.NDArray[np.bool_]) -> None:
        """Count the (n, C) sets of n images."""
        self.sizes += np.bincount(np.minimum(has.sum(axis=1), MOST_COUNTED + 1), minlength=MOST_COUNTED + 2)
        self.counts += has.sum(axis=0)

    @property
    def total(self) -> int:
        """Labels of all images."""
        return int(self.counts.sum())

    @property
    def images(self) -> int:
        """Images counted."""
        return int(self.sizes.sum())

    @property
    def mean(self) -> float:
        """Labels per image; NaN for no images."""
        return self.total / self.images if self.images else float("nan")


class Pairs:
    """How often some classes are labels of the same image.

    Args:
        classes: k of the C classes, by number.

    Attributes:
        classes: these, ascending, each once.
        together: (k, k) images that have both classes; the diagonal counts the images that have the class.

    """

    def __init__(self, classes: Iterable[int]) -> None:
        self.classes = sorted(set(classes))
        self.together: Ints = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)

    def add(self, has: npt.NDArray[np.bool_]) -> None:
        """Count the (n, C) sets of n images, at most 2^24."""
        chosen = has[:, self.classes].astype(np.float32)  # the product of integers would be slow, and this is exact
        self.together += (chosen.T @ chosen).astype(np.int64)

    def given(self, rows: Sequence[int], columns: Sequence[int]) -> Floats:
        """Return the share of the images with the row's class that have the column's too.

        Args:
            rows: r of the classes.
            columns: c of the classes.

        Returns:
            (r, c) in [0, 1]; NaN in the row of a class that no image has.

        """
        at_rows, at_columns = (np.searchsorted(self.classes, names) for names in (rows, columns))
        both, images = self.together[np.ix_(at_rows, at_columns)], self.together.diagonal()[at_rows, None]
        share: Floats = np.full(both.shape, np.nan)
        np.divide(both, images, out=share, where=images > 0)
        return share

    def commonest(self) -> tuple[int, int, int] | None:
        """Return the two classes that most images have both of, and how many; None where no image has two."""
        pairs = np.triu(self.together, k=1)
        if not pairs.any():
            return None
        first, second = np.unravel_index(pairs.argmax(), pairs.shape)  # of equally common pairs the first
        return self.classes[first], self.classes[second], int(pairs[first, second])


@dataclass
class Tally:
    """One stage's answers, counted.

    Attributes:
        labels: what it names.
        values: (len(EDGES) - 1,) pairs of image and class by logit.
        value_sum: of all logits.
        sure: (BINS,) sum of the probabilities of counted pairs.
        true: (BINS,) counted pairs that are true.
        counted: (BINS,) pairs with known truth.

    """

    labels: Labels
    values: Ints = field(default_factory=lambda: np.zeros(len(EDGES) - 1, dtype=np.int64))
    value_sum: float = 0.0
    sure: Floats = field(default_factory=lambda: np.zeros(BINS))
    true: Ints = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    counted: Ints = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))

    def add(self, z: Floats, truth: Truth, threshold: Floats | float) -> None:
        """Count n images: (n, C) logits and truth (1, 0, or -1 for not known); named are probabilities >= threshold."""
        p = sigmoid(z)
        self.labels.add(named(z, threshold))
        self.values += np.histogram(np.clip(z, EDGES[0], EDGES[-1]), bins=EDGES)[0]
        self.value_sum += float(z.sum(dtype=np.float64))
        known = truth >= 0
        bins = np.minimum((p[known] * BINS).astype(np.int64), BINS - 1)
        self.sure += np.bincount(bins, p[known], minlength=BINS)
        self.true += np.bincount(bins[truth[known] == 1], minlength=BINS)
        self.counted += np.bincount(bins, minlength=BINS)

    @property
    def mean_value(self) -> float:
        """Mean logit."""
        return self.value_sum / max(int(self.values.sum()), 1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, in [0, 1]: mean over pairs of |share that is true - mean probability| by bin."""
        off = np.abs(self.true - self.sure).sum()
        return float(off / max(int(self.counted.sum()), 1))


def tally(blocks: Iterable[Floats], truth: Truth, threshold: Floats | float) -> Tally:
    """Count one stage.

    Args:
        blocks: its logits, (n_1, C), (n_2, C), ...
        truth: (n_1 + n_2 + ..., C) in the same order.
        threshold: decision threshold on the probability, one or (C,).

    """
    counted = Tally(Labels.of(truth.shape[1]))
    start = 0
    for z in blocks:
        counted.add(z, truth[start : start + len(z)], threshold)
        start += len(z)
    return counted


def tally_truth(truth: Truth) -> Labels | None:
    """Count the true labels of the images that have any known; None where there are none."""
    labels = Labels.of(truth.shape[1])
    for has in true_sets(truth):
        labels.add(has)
    return labels if labels.images else None


def true_sets(truth: Truth) -> Iterator[npt.NDArray[np.bool_]]:
    """Give the sets of true labels of the images that have any known, (n, C), slice by slice."""
    for rows in batched_slices(len(truth), images_at_once(truth.shape[1])):
        part = truth[rows]
        yield part[(part >= 0).any(axis=1)] == 1
