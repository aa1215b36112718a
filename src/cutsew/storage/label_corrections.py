"""A human's corrections of labels, `corrections.parquet`, and what they do to labels."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cutsew.errors import UserError
from cutsew.method.correct import ABSENT, LEFT, PRESENT
from cutsew.storage.atomic import atomic_path
from cutsew.storage.tables import read_parquet

if TYPE_CHECKING:
    import pandas as pd

FILE = "corrections.parquet"
COLUMNS = ("image", "split", "class", "present", "by", "at")
SOURCE = "human"
"""What marks a human's label in exported files."""


class Corrections:
    """A human's corrections of some images' labels.

    Attributes:
        table: columns COLUMNS, a row per correction: image and class (text), split (train or test), present (1 or 0),
            by and at (text, may be empty).
        classes: names of the C classes of the run.

    """

    def __init__(self, table: "pd.DataFrame", classes: Sequence[str]) -> None:
        self.table = table
        self.classes = list(classes)
        place = {name: c for c, name in enumerate(self.classes)}
        self._said: dict[str, list[tuple[int, int]]] = {}
        for image, name, present in zip(table["image"], table["class"], table["present"], strict=True):
            self._said.setdefault(image, []).append((place[name], PRESENT if present else ABSENT))

    def __len__(self) -> int:
        """Return how many labels are corrected."""
        return len(self.table)

    def said(self, ids: Sequence[str]) -> npt.NDArray[np.int8]:
        """Return (n, C) int8 for n images: PRESENT, ABSENT, or LEFT where nobody said anything."""
        signs = np.full((len(ids), len(self.classes)), LEFT, dtype=np.int8)
        for row, name in enumerate(ids) if self._said else ():
            for c, value in self._said.get(name, ()):
                signs[row, c] = value
        return signs

    def of_split(self, split: str) -> "Corrections":
        """Return those of the images of one split."""
        return Corrections(self.table[self.table["split"] == split].reset_index(drop=True), self.classes)

    @property
    def counts(self) -> tuple[int, int]:
        """How many labels of training images are corrected, and how many of held-out ones."""
        return len(self.of_split("train")), len(self.of_split("test"))

    @property
    def authors(self) -> list[str]:
        """Names of those who made them, as far as they are given, sorted."""
        return sorted(set(self.table["by"]) - {""})

    @property
    def images(self) -> list[str]:
        """Ids of the corrected images."""
        return list(self._said)

    @property
    def digest(self) -> str:
        """Digest of which labels were set to what, whoever did it and in whatever order; empty for none."""
        return digest_of(self.table)


def digest_of(table: "pd.DataFrame") -> str:
    """Digest columns image, class and present of corrections, in whatever order they stand; empty for none."""
    rows = sorted(zip(table["image"], table["class"], map(int, table["present"]), strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] if rows else ""


def write_corrections(path: Path, corrections: Corrections) -> None:
    """Write the corrections atomically."""
    with atomic_path(path) as draft:
        corrections.table[list(COLUMNS)].to_parquet(draft, index=False)


def read_corrections(path: Path, classes: Sequence[str]) -> Corrections:
    """Read corrections.

    Raises:
        UserError: there is no such file, or it is of other classes.

    """
    table = read_parquet(path, COLUMNS)
    unknown = sorted(set(table["class"]) - set(classes))
    if unknown:
        raise UserError(
            f"{path}: corrects {unknown[0]!r}, which is not a class of these labels; run the workflow again"
        )
    return Corrections(table, classes)


def in_words(train: int, test: int, *, student: bool = True) -> str:
    """Say what a number of corrections of training and of held-out images leads to."""
    if not train + test:
        return "no label corrected: no row of the file changes a label"
    if not student:
        return f"{_labels(train + test)} corrected; no student is trained (student.kind: none); {EVERYWHERE}"
    if not train:
        return f"{_labels(test)} corrected, all of held-out images: they train nothing; {EVERYWHERE}"
    held_out = f", and {test} of held-out images, which train nothing" if test else ""
    return f"{_labels(train)} of training images corrected, from which training starts{held_out}; {EVERYWHERE}"


EVERYWHERE = "exports, audit and report show them as a human's"


def _labels(count: int) -> str:
    return f"{count} label{'' if count == 1 else 's'}"
