"""Labels for export: which stage's for which images, read slice by slice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from cutsew.audit.run import Run, near, stages_of
from cutsew.errors import UserError
from cutsew.method.correct import LEFT, PRESENT
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import named
from cutsew.storage.label_corrections import Corrections
from cutsew.storage.manifest import SPLITS, batched_slices
from cutsew.storage.predictions import FINAL, SPLIT_STAGES, StagePredictions, images_at_once
from cutsew.storage.result_tables import RunThresholds

Floats = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """Some images' labels.

    Attributes:
        stage: whose labels they are.
        images: n rows of the manifest.
        named: (n, C) bool, the labels.
        proposed: (n, C) bool, the stage's own labels, whatever a human said.
        probabilities: (n, C) in [0, 1], the stage's own, whatever a human said.
        said: (n, C) int8, what a human said: PRESENT, ABSENT, or LEFT for nothing. It has decided `named`.

    """

    stage: str
    images: pd.DataFrame
    named: npt.NDArray[np.bool_]
    proposed: npt.NDArray[np.bool_]
    probabilities: Floats
    said: npt.NDArray[np.int8]

    @property
    def confidence(self) -> Floats:
        """(n, C) in [0, 1]: 1 and 0 where a human said present and absent, else the stage's probability."""
        kept: Floats = np.where(self.said == LEFT, self.probabilities, self.said == PRESENT).astype(np.float32)
        return kept

    def rows(self, columns: Sequence[str], *arrays: npt.NDArray[Any]) -> Iterator[tuple[Any, ...]]:
        """Iterate over the images: their values of some columns of the manifest, then their rows of (n, C) arrays."""
        return zip(*(self.images[name] for name in columns), *arrays, strict=True)


@dataclass(frozen=True)
class Labels:
    """The labels of some images.

    Attributes:
        outcomes: what each stage made of the images.
        stages: split -> stage whose labels its images have.
        images: rows of the manifest; `batches` leaves out images without finite labels.
        num_excluded: how many such images were excluded from `images` in advance.
        thresholds: of all stages.
        probability_stage: stage whose probabilities are exported with the labels; None for the labels' own.
        corrections: a human's, which win over the stages; None for none.

    """

    outcomes: Mapping[str, StagePredictions]
    stages: dict[str, str]
    images: pd.DataFrame
    num_excluded: int
    thresholds: RunThresholds
    probability_stage: str | None = None
    corrections: Corrections | None = None

    @cached_property
    def corrected(self) -> Corrections | None:
        """The corrections of the exported images, or None."""
        if self.corrections is None:
            return None
        rows = self.corrections.table["image"].isin(self.images["id"])
        return Corrections(self.corrections.table[rows], self.classes) or None

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return next(iter(self.outcomes.values())).classes

    @property
    def rules(self) -> dict[str, str]:
        """Stage -> the rule of its thresholds, and what it means."""
        return {stage: self.thresholds.in_words(stage) for stage in dict.fromkeys(self.stages.values())}

    def batches(self) -> Iterator[Batch]:
        """Give the labels slice by slice, in the order of `images`."""
        for split, stage in self.stages.items():
            part = self.images[self.images["split"] == split]
            thresholds = self.thresholds.of(stage, len(self.classes))
            for rows in batched_slices(len(part), images_at_once(len(self.classes))):
                rows_of_part = part.iloc[rows]
                z = self._logits(stage, rows_of_part)
                finite = np.flatnonzero(np.isfinite(z).all(axis=1))
                rows_of_part, z = rows_of_part.iloc[finite], z[finite]
                corrected = np.full(z.shape, LEFT, dtype=np.int8)
                if self.corrections is not None:
                    corrected = self.corrections.said(rows_of_part["id"].tolist())
                proposed = named(z, thresholds)
                labels = np.where(corrected == LEFT, proposed, corrected == PRESENT)
                if self.probability_stage is not None:
                    z = self._logits(self.probability_stage, rows_of_part)
                p = sigmoid(z.astype(np.float64)).astype(np.float32)
                yield Batch(stage, rows_of_part, labels, proposed, p, corrected)

    def shown(self, bar: "tqdm[Any]") -> Iterator[Batch]:
        """Yield the batches and update a progress bar with their images."""
        for batch in self.batches():
            yield batch
            bar.update(len(batch.images))

    def _logits(self, stage: str, images: pd.DataFrame) -> Floats:
        return self.outcomes[stage].read(pd.Index(images["id"]))


def choose(
    run: Run,
    stage: str | None,
    split: str | None,
    threshold: float | None = None,
    probability_stage: str | None = None,
    *,
    by_hand: bool = True,
) -> Labels:
    """Choose labels.

    Args:
        run: the run.
        stage: whose labels; None for the last stage of each split.
        split: train or test; None for both, as far as the stage has labels of them.
        threshold: probability from which a class is a label; None for the run's thresholds.
        probability_stage: stage whose probabilities are exported with the labels; None for the labels' own.
        by_hand: a human's corrections win over the stage.

    Raises:
        UserError: no such stage, or it has no labels of those images.

    """
    stages: dict[str, str] = {}
    stages_by_split = {name: _available(run, name) for name in SPLITS if run.ids(name)}
    for name, available in stages_by_split.items():
        requested = stage or (run.stages(name)[-1] if split is None or split == name else None)
        if (
            requested in available
            and (probability_stage is None or probability_stage in available)
            and split in (None, name)
        ):
            stages[name] = str(requested)
    if not stages:
        _refuse(run, stage, split, probability_stage, stages_by_split)
    local_values = run.thresholds if threshold is None else RunThresholds(threshold)
    image_rows, left_out = finite_images(run.images, run.outcomes, stages, probability_stage)
    return Labels(
        run.outcomes,
        stages,
        image_rows,
        left_out,
        local_values,
        probability_stage,
        run.corrections if by_hand else None,
    )


def last_labels(
    images: pd.DataFrame,
    outcomes: Mapping[str, StagePredictions],
    thresholds: RunThresholds,
    corrections: Corrections | None,
) -> Labels:
    """Take every image's last labels, which are not read in advance: `num_excluded` is 0.

    Args:
        images: the manifest.
        outcomes: stage -> what it made of the images.
        thresholds: of all stages.
        corrections: a human's; None for none.

    """
    available = [split for split in SPLITS if (images["split"] == split).any()]
    stages = {split: [name for name in SPLIT_STAGES[split] if name in outcomes][-1] for split in available}
    return Labels(outcomes, stages, images, 0, thresholds, None, corrections)


def finite_images(
    images: pd.DataFrame,
    outcomes: Mapping[str, StagePredictions],
    stages: Mapping[str, str],
    probability_stage: str | None,
) -> tuple[pd.DataFrame, int]:
    """Return the images of some splits, and how many are left out.

    Images without finite labels are: held-out ones that a teacher of kind scores did not score.
    """
    parts, count = [], 0
    for split, stage in stages.items():
        part = images[images["split"] == split]
        known = np.ones(len(part), dtype=bool)
        for name in (stage, probability_stage) if probability_stage is not None else (stage,):
            finite = [np.isfinite(z).all(axis=1) for z in outcomes[name].slices(pd.Index(part["id"]))]
            known &= np.concatenate(finite)
        parts.append(part[known])
        count += len(part)
    image_rows = pd.concat(parts, ignore_index=True)
    return image_rows, count - len(image_rows)


def _available(run: Run, split: str) -> list[str]:
    """Name the stages that have labels of a split's images; the teacher's are there of held-out ones too."""
    named = [name for name, _ in stages_of(run, split) if name != FINAL]
    return [*named, *(name for name in ("pseudo",) if name in run.outcomes and name not in named)]


def _refuse(
    run: Run, stage: str | None, split: str | None, probability_stage: str | None, stages_by_split: dict[str, list[str]]
) -> None:
    every = list(dict.fromkeys(name for present in stages_by_split.values() for name in present))
    for option, value in (("--stage", stage), ("--probabilities", probability_stage)):
        if value is not None and value not in every:
            raise UserError(f"{option}: {value} is not a stage of {run.folder.name}{near(value, every)}")
    scope = f"{split} images" if split else "images that have both"
    available = "; ".join(f"{name}: {', '.join(names)}" for name, names in stages_by_split.items())
    raise UserError(f"--stage: no labels of {stage or 'a stage'} for {scope}; there are {available}")
