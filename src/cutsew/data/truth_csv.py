"""True labels from a CSV file: lists of class names, or a column of 1 and 0 for each class."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.data.csv_file import IMAGE_COLUMNS, ImageNames, find_images, nfc, read_csv
from cutsew.data.truth import Truth, absent_classes, meant_by
from cutsew.errors import UserError, some

SETTING = "dataset.truth"


LABEL_COLUMNS = ("labels", "label", "class", "classes", "category", "categories")
"""Columns of a CSV that hold names of classes."""


PRESENT = "present"
"""Column of a CSV that says whether its row's class is in the image, as in the corrections that the report writes."""


VALUES = {"1": 1, "0": 0, "-1": -1, "": -1, "1.0": 1, "0.0": 0, "-1.0": -1, "true": 1, "false": 0, "nan": -1}
"""What may stand in the column of a class, in lower case: positive, negative, not known."""


FORMS = "path,labels with names separated by ; or path and a column of 1 and 0 for each class"


def from_csv(path: Path, images: ImageNames, classes: Sequence[str], setting: str = SETTING) -> Truth:
    """Read a CSV of true labels.

    A column of IMAGE_COLUMNS names the image (see `ImageNames`). Its labels stand in one of three forms:

    - a column of LABEL_COLUMNS with names separated by `;`, empty for none. A class that the file names anywhere is
      negative in images whose rows do not name it. Unless the column is called `labels`, an image may have several
      rows.
    - such a column and `present` (1, 0 or -1): what no row says is unknown.
    - a column per class (1, 0, and -1 or empty for unknown).

    Args:
        path: the CSV.
        images: what images are called.
        classes: C names.
        setting: dotted name of the setting that names the file, for messages.

    Raises:
        UserError: the file is missing or not such a CSV, contradicts itself, or names none of the images or none of the
            classes.

    """
    table = _read(path, setting)
    rows = _parse(table, classes, path, setting)
    ids = find_images(table, images, path, setting)
    truth = Truth(named=rows.named, known=rows.known, strange=ids.count(None), exhaustive=rows.exhaustive)
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(ids):
        if image is not None:
            rows_of.setdefault(image, []).append(row)
    for image, at in rows_of.items():
        truth.labels[image] = rows.labels[at[0]]
        if len(at) > 1:
            truth.labels[image] = _merged(at, rows, f"{setting}: {path}", table.index, image)
    return truth


def check_csv(path: Path, classes: Sequence[str], images: ImageNames | None = None) -> None:
    """Check a CSV of true labels without taking its labels.

    Args:
        path: the CSV.
        classes: C names.
        images: what images are called; None where that is not known yet.

    Raises:
        UserError: the file is missing or not such a CSV, or names none of the classes or none of the images.

    """
    table = _read(path, SETTING)
    _parse(table, classes, path, SETTING)
    if images is not None and len(images.ids):
        find_images(table, images, path, SETTING, warn=False)


def split_labels(labels: str) -> list[str]:
    """Split a field of labels at its semicolons; each name once."""
    return list(dict.fromkeys(name.strip() for name in labels.split(";") if name.strip()))


@dataclass
class _Rows:
    """What a CSV says, row by row.

    Attributes:
        labels: of each row, class -> 1, 0 or -1.
        named: how often each name is positive.
        known: names of which anything is said.
        unsaid: what a row says of a known name that it does not hold: 0 negative, -1 nothing.
        exhaustive: as of Truth.

    """

    labels: list[dict[str, int]]
    named: Counter[str]
    known: set[str]
    unsaid: int
    exhaustive: bool = True


def _read(path: Path, setting: str) -> pd.DataFrame:
    table = read_csv(path, setting, (*LABEL_COLUMNS, PRESENT))
    if not any(name in table.columns for name in IMAGE_COLUMNS):
        raise UserError(
            f"{setting}: {path} needs the columns {FORMS}; none of its columns names the image "
            f"({some([str(name) for name in table.columns])}): call that column path or id"
        )
    return table


def _parse(table: pd.DataFrame, classes: Sequence[str], path: Path, setting: str) -> _Rows:
    location = f"{setting}: {path}"
    wide = {str(name): class_name for name, class_name in meant_by(map(str, table.columns), classes).items()}
    images = [name for name in IMAGE_COLUMNS if name in table.columns]
    for name in images:
        if name in wide and (len(images) == 1 or not _holds_values(table[name])):
            del wide[name]  # names the image, and is not the class that is called so
    column = next((name for name in LABEL_COLUMNS if name in table.columns), None)
    if column in wide and _holds_values(table[column]):
        column = None  # the class that is called so
    if column is None and not wide:
        others = [str(name) for name in table.columns if name not in images and _holds_values(table[name])]
        if others and not table.empty:
            absent_classes(classes, others, f"{location}, in its columns,")
        raise UserError(
            f"{location} needs the columns {FORMS}; no column is called labels or like one of the classes "
            f"({some([str(name) for name in table.columns])})"
        )
    if table.empty:
        raise UserError(f"{location} holds no row but its column names; add the labels, or set null for none")
    if column is None:
        rows = _of_columns(table, list(wide), location)
    elif PRESENT in table.columns:
        rows = _of_claims(table, column, location)
    else:
        rows = _of_lists(table, column, classes, location)
    absent_classes(classes, rows.known, location)
    return rows


def _of_lists(table: pd.DataFrame, column: str, classes: Sequence[str], location: str) -> _Rows:
    exact = {nfc(name) for name in classes if ";" in name}
    split = {text: [text] if nfc(text) in exact else split_labels(text) for text in table[column].unique()}
    named: Counter[str] = Counter()
    for text, count in table[column].value_counts().items():
        named.update(dict.fromkeys(split[str(text)], int(count)))
    class_of = meant_by(named, classes)
    for name in named.keys() - class_of.keys():
        parts = [part for part in re.split(r"[,|/\t]", name) if part.strip()]
        if len(parts) > 1 and len(meant_by(parts, classes)) == len(set(parts)):
            line = next(line for line, text in table[column].items() if name in split[text])
            raise UserError(
                f"{location}, line {line}, column {column}: {name!r} is no class but several; separate labels by ;"
            )
    labels = {text: dict.fromkeys(names, 1) for text, names in split.items()}  # rows of equal text share one
    return _Rows([labels[text] for text in table[column]], named, set(named), unsaid=0 if column == "labels" else -1)


def _of_claims(table: pd.DataFrame, column: str, location: str) -> _Rows:
    values = _values(table, PRESENT, location).tolist()
    labels = [{name: value} if name else {} for name, value in zip(table[column], values, strict=True)]
    named = Counter(name for row in labels for name, value in row.items() if value == 1)
    known = {name for row in labels for name, value in row.items() if value >= 0}
    return _Rows(labels, named, known, unsaid=-1, exhaustive=False)


def _of_columns(table: pd.DataFrame, names: list[str], location: str) -> _Rows:
    values = np.stack([_values(table, name, location) for name in names], axis=1)
    labels: list[dict[str, int]] = [{} for _ in range(len(table))]
    for row, i in zip(*np.nonzero(values), strict=True):
        labels[row][names[i]] = int(values[row, i])
    known = {name for name, column in zip(names, values.T, strict=True) if (column >= 0).any()}
    named = Counter(dict(zip(names, (values == 1).sum(axis=0).tolist(), strict=True)))
    return _Rows(labels, named, known, unsaid=0)


def _holds_values(column: "pd.Series[str]") -> bool:
    return bool(column.str.lower().isin(VALUES.keys()).all())


def _values(table: pd.DataFrame, column: str, location: str) -> npt.NDArray[np.int8]:
    values = table[column].str.lower().map(VALUES)
    if values.isna().any():
        line = table.index[int(np.argmax(values.isna()))]
        value = table[column][line]
        raise UserError(
            f"{location}, line {line}, column {column}: {value!r} is neither 1, 0 nor empty; write one of these"
        )
    return values.to_numpy().astype(np.int8)


def _merged(at: list[int], rows: _Rows, location: str, lines: pd.Index, image: str) -> dict[str, int]:
    """Merge the rows of one image, refusing two that contradict each other."""
    merged: dict[str, int] = {}
    for name in dict.fromkeys(name for row in at for name in rows.labels[row]):
        first_lines: dict[int, int] = {}
        for row in at:
            first_lines.setdefault(rows.labels[row].get(name, rows.unsaid), lines[row])
        first_lines.pop(-1, None)
        if len(first_lines) > 1:
            raise UserError(
                f"{location} names {image!r} twice: {name!r} is there by line {first_lines[1]} and not by line "
                f"{first_lines[0]}; keep "
                "one row an image"
            )
        merged[name] = next(iter(first_lines), -1)
    return merged
