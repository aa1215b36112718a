"""The CSV of a human's corrections, as the report's page writes it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.data import csv_file
from cutsew.errors import UserError
from cutsew.numerics.override import ABSENT, LEFT, PRESENT

SETTING = "labels.overrides"
NEEDED = ("image", "class", "present")
SAID = {"1": PRESENT, "0": ABSENT}


def read_overrides(path: Path) -> pd.DataFrame:
    """Read the corrections.

    Returns:
        Columns image, class, present (PRESENT or ABSENT), by and at; the last two are empty where the file lacks them.

    Raises:
        UserError: the file is missing, is not such a CSV, or says two things of one label.

    """
    table = _read(path)
    wrong = table.index[~table["present"].isin(SAID)]
    if len(wrong):
        line, value = wrong[0], table["present"][wrong[0]]
        raise UserError(f"{SETTING}: {path}, line {line}: present is {value!r}; write 1 or 0")
    table["present"] = table["present"].map(SAID).astype(np.int8)
    for name in ("by", "at"):
        if name not in table:
            table[name] = ""
    table = table.drop_duplicates(subset=list(NEEDED))
    twice = table.index[table.duplicated(subset=["image", "class"])]
    if len(twice):
        image, name = table.loc[twice[0], ["image", "class"]]
        raise UserError(f"{SETTING}: {path}, line {twice[0]}: {name} of {image} is set to 1 and to 0; keep one")
    return table[[*NEEDED, "by", "at"]].reset_index(drop=True)


def lay_out(
    table: pd.DataFrame, ids: Sequence[str], classes: Sequence[str], path: Path
) -> dict[int, npt.NDArray[np.int8]]:
    """Lay the corrections out by photo.

    Args:
        table: as `read_overrides` returns it.
        ids: of all photos, in the order of the labels' rows.
        classes: C names.
        path: the file, for errors.

    Returns:
        Row of each corrected photo -> (C,) int8, LEFT where nothing was said.

    Raises:
        UserError: a photo or a class is not known.

    """
    row_of, column_of = ({name: i for i, name in enumerate(names)} for names in (ids, classes))
    for column, known in (("image", row_of), ("class", column_of)):
        strange = [name for name in table[column] if name not in known]
        if strange:
            raise UserError(
                f"{SETTING}: {path} names {column} {strange[0]!r}, which this run does not have; correct or remove it"
            )
    said: dict[int, npt.NDArray[np.int8]] = {}
    for image, name, present in zip(table["image"], table["class"], table["present"], strict=True):
        row = said.setdefault(row_of[image], np.full(len(classes), LEFT, dtype=np.int8))
        row[column_of[name]] = present
    return said


def _read(path: Path) -> pd.DataFrame:
    table = csv_file.read_csv(path, SETTING, (*NEEDED, "by", "at"))
    lost = [name for name in NEEDED if name not in table.columns]
    if lost:
        raise UserError(f"{SETTING}: {path} needs the columns image, class and present; mend its first line")
    return table
