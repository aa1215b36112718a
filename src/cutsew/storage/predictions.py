"""The logits of every stage, read by the images' ids, whatever rows its Zarr holds and in whatever order."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.errors import UserError
from cutsew.method.correct import override
from cutsew.storage.image_ids import Ids, ImageIds, image_ids
from cutsew.storage.label_corrections import Corrections
from cutsew.storage.tables import label_column, read_names, read_parquet
from cutsew.storage.zarr_layout import folder_of
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read_rows

IMAGES_AT_ONCE = 8192
"""Images in one slice of a read where the classes are few."""

SLICE_BYTES = 64 * 2**20


def images_at_once(classes: int) -> int:
    """Return how many images one slice of a read has: float32 logits of `classes` take SLICE_BYTES at most."""
    return max(1, min(IMAGES_AT_ONCE, SLICE_BYTES // (4 * classes)))


COLUMNS = 64
"""Columns of truth.parquet that are read at a time."""

FEW = 1000
"""Images up to which true labels are looked up one by one instead of reading all."""

SPLIT_STAGES = {
    "train": ("zero_shot", "fused", "pseudo", "targets", "overridden", "refined"),
    "test": ("zero_shot", "fused", "student", "tiles", "ensemble"),
}
"""Stages that are looked at on each split, in the order of the pipeline."""

REFERENCE = "reference_"
"""What the names of reference students begin with where the stages' do not: they are no stage of the pipeline."""

ZARRS = {name: name for name in ("fused", "pseudo", "targets", "overridden", "refined")}
ZARRS = {"zero_shot": "logits", **ZARRS, "student": "scores", "tiles": "tiles", "ensemble": "ensemble"}
"""Stage -> name of its Zarr, as the command line calls it."""


FINAL = "final"
"""Name of these labels among the stages. They are never measured: a human's corrections are no merit of a model."""

EPSILON = 1e-6
"""A corrected label has the probability 1 - EPSILON or EPSILON."""


class StagePredictions:
    """One stage's logits.

    Args:
        stage: its name.
        path: its Zarr, the folder or the `zarr.json` in it.

    Raises:
        UserError: the Zarr is not there or is damaged.

    """

    def __init__(self, stage: str, path: Path) -> None:
        self.stage = stage
        self.path = folder_of(path)
        group = open_group(path)
        self.classes = labels_of(group, "class")
        self._array = array_of(group, "zero_shot" if stage == "zero_shot" else "z")
        self._ids = ImageIds(image_ids(group))

    def share_ids(self, others: Iterable["StagePredictions"]) -> None:
        """Use the ids of another stage where they are equal, so that they are held and found once."""
        names = self._ids.names
        self._ids = next((other._ids for other in others if other._ids.names.equals(names)), self._ids)

    def read(self, ids: Ids) -> npt.NDArray[np.float32]:
        """Return the (n, C) logits of n images, in the order of `ids`."""
        return self.columns(ids, slice(0, len(self.classes)))

    def covers(self, ids: Ids) -> bool:
        """Check whether the stage has logits of all these images; imported scores may leave out held-out ones."""
        return all(np.isfinite(block).all() for block in self.slices(ids))

    def columns(self, ids: Ids, classes: slice) -> npt.NDArray[np.float32]:
        """Return the (n, stop - start) logits of a block of classes, of n images in the order of `ids`."""
        z = np.empty((len(ids), classes.stop - classes.start), dtype=np.float32)
        start = 0
        for block in self.slices(ids):
            z[start : start + len(block)] = block[:, classes]
            start += len(block)
        return z

    def slices(self, ids: Ids) -> Iterator[npt.NDArray[np.float32]]:
        """Give the logits of some images in slices of `images_at_once`, in the order of `ids`.

        Raises:
            UserError: an image is not there.

        """
        rows = self._ids.find(ids)
        if (rows < 0).any():
            first = ids[int(np.argmax(rows < 0))]
            raise UserError(
                f"{self.path}: lacks {(rows < 0).sum()} of {len(ids)} images, such as {first!r}; run the workflow again"
            )
        size = images_at_once(len(self.classes))
        for start in range(0, len(rows), size):
            yield read_rows(self._array, rows[start : start + size]).astype(np.float32)


class Final(StagePredictions):
    """The last stage's logits with a human's corrections.

    Args:
        last: split -> its last stage.
        split_of: id of each image -> its split.
        corrections: by a human.

    """

    def __init__(
        self, last: Mapping[str, StagePredictions], split_of: Mapping[str, str], corrections: Corrections
    ) -> None:
        self.stage = FINAL
        self.classes = corrections.classes
        self.last = dict(last)
        self._split_of = split_of
        self._corrections = corrections

    def slices(self, ids: Ids) -> Iterator[npt.NDArray[np.float32]]:
        """Give the logits of some images in slices of `images_at_once`, in the order of `ids`."""
        size = images_at_once(len(self.classes))
        for start in range(0, len(ids), size):
            ids_of_slice = list(ids[start : start + size])
            z = np.empty((len(ids_of_slice), len(self.classes)), dtype=np.float32)
            splits = np.array([self._split_of[name] for name in ids_of_slice])
            for split, predictions in self.last.items():
                rows = np.flatnonzero(splits == split)
                if len(rows):
                    z[rows] = predictions.read([ids_of_slice[row] for row in rows])
            yield override(z, self._corrections.said(ids_of_slice), EPSILON)[0]


def open_predictions(
    zarrs: dict[str, Path | None], references: Mapping[str, Path] | None = None
) -> dict[str, StagePredictions]:
    """Open the stages' Zarrs.

    Args:
        zarrs: by the names that ZARRS gives them; None or left out where it was not made.
        references: kind of reference student -> its scores.zarr.

    Raises:
        UserError: one is not there, or their classes differ.

    """
    paths = {stage: zarrs.get(name) for stage, name in ZARRS.items()}
    paths |= {REFERENCE + kind: path for kind, path in (references or {}).items()}
    by_stage: dict[str, StagePredictions] = {}
    for stage, path in paths.items():
        if path is not None:
            predictions = StagePredictions(stage, path)
            predictions.share_ids(by_stage.values())
            by_stage[stage] = predictions
    first = next(iter(by_stage.values()))
    for predictions in by_stage.values():
        if predictions.classes != first.classes:
            raise UserError(f"{predictions.path}: its classes are not those of {first.path}; run the workflow again")
    return by_stage


BLOCK_BYTES, PAIR_BYTES = 160 * 2**20, 10
"""Bytes of a block of classes; what a measure of classes holds of one pair of image and class: logit, truth, marks."""


def class_blocks(images: int, classes: int) -> list[slice]:
    """Cut C classes into blocks whose logits and truth of all images fit into BLOCK_BYTES."""
    size = max(1, BLOCK_BYTES // (PAIR_BYTES * max(1, images)))
    return [slice(start, min(start + size, classes)) for start in range(0, classes, size)]


def read_truth(path: Path, ids: Ids, classes: Sequence[str]) -> npt.NDArray[np.int8]:
    """Read true labels. Of the stages only evaluate, report, sweep_table and reference_labels may; tools show them.

    Args:
        path: `truth.parquet`: column id and one int8 column per class (see `label_column`).
        ids: n images.
        classes: C names.

    Returns:
        (n, C) int8: 1 positive, 0 negative, -1 not counted; an image that the file does not hold is -1 throughout.

    Raises:
        UserError: the file is not there, or a class is not in it.

    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of true labels; run the workflow to make it, or leave --labels out")
    columns = [label_column(name) for name in classes]
    present = set(read_names(path))
    for name, column in zip(classes, columns, strict=True):
        if column not in present:
            raise UserError(f"{path}: has no column {name!r}; rerun the workflow to read the ground truth again")
    if len(ids) <= FEW:
        labels = read_parquet(path, ["id", *columns], [("id", "in", list(ids))]).set_index("id")
        chosen: npt.NDArray[Any] = labels.reindex(index=list(ids), columns=columns, fill_value=-1).to_numpy()
        return chosen.astype(np.int8)
    rows = ImageIds(pd.Index(read_parquet(path, ["id"])["id"])).find(ids)
    known = rows >= 0
    places, truth = rows[known], np.full((len(ids), len(columns)), -1, dtype=np.int8)
    for start in range(0, len(columns), COLUMNS):
        part = read_parquet(path, columns[start : start + COLUMNS])
        for c, column in enumerate(part.columns, start):
            truth[known, c] = part[column].to_numpy()[places]
    return truth
