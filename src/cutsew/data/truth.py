"""True labels, from the annotations of a benchmark's layout or a CSV; for evaluation only."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.artefacts.tables import label_column
from cutsew.data import coco, nus, voc
from cutsew.data.csv_file import PHOTO_COLUMNS, PhotoNames, find_photos, nfc, read_csv
from cutsew.errors import UserError, some

log = logging.getLogger(__name__)

SETTING = "dataset.truth"

COUNTS = {"negative": 0, "ignore": -1, "positive": 1}
"""What an object seen only as difficult counts as."""

LABEL_COLUMNS = ("labels", "label", "class", "classes", "category", "categories")
"""Columns of a CSV that hold names of classes."""

PRESENT = "present"
"""Column of a CSV that says whether its row's class is in the photo, as in the corrections that the report writes."""

VALUES = {"1": 1, "0": 0, "-1": -1, "": -1, "1.0": 1, "0.0": 0, "-1.0": -1, "true": 1, "false": 0, "nan": -1}
"""What may stand in the column of a class, in lower case: positive, negative, not known."""

FORMS = "path,labels with names separated by ; or path and a column of 1 and 0 for each class"


@dataclass
class Truth:
    """Labels of photos.

    Attributes:
        labels: id -> class -> 1 positive, 0 negative or -1 not known.
        named: every label name met, those outside the classes included, and how often.
        strange: rows whose photo is not in the manifest (CSV only).
        known: names that the annotations may use, also those that no photo has.
        exhaustive: a known class that a photo's labels do not name is negative there, and not unknown.

    """

    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    named: Counter[str] = field(default_factory=Counter)
    strange: int = 0
    known: set[str] = field(default_factory=set)
    exhaustive: bool = True


def from_voc(root: Path, names: Iterable[str], difficult: str) -> Truth:
    """Read VOC annotations.

    Args:
        root: folder of the layout.
        names: ids of the photos.
        difficult: negative, ignore or positive: how a class counts whose objects in a photo are all marked difficult.

    Raises:
        UserError: an annotation is missing or damaged.

    """
    truth = Truth()
    for name in names:
        labels: dict[str, int] = {}
        for thing in voc.read_annotation(voc.annotation_path(root, name)):
            truth.named[thing.name] += 1
            value = COUNTS[difficult] if thing.difficult else 1
            labels[thing.name] = 1 if 1 in (value, labels.get(thing.name)) else value
        truth.labels[name] = labels
    truth.known = set(truth.named) | voc.class_names_of_lists(root)
    return truth


def from_coco(root: Path, lists: Mapping[str, Mapping[str, str]]) -> Truth:
    """Read COCO's instances: a category is positive where any object or crowd of it is annotated.

    Args:
        root: folder of the layout.
        lists: name of each list -> id -> path of its photos that are in the manifest.

    Raises:
        UserError: a file is missing or damaged.

    """
    truth = Truth()
    for name, photos in lists.items():
        instances, categories = coco.read_instances(root, name, "dataset.coco")
        truth.known.update(categories)
        for photo, file in zip(photos, coco.file_names(root, name, list(photos.values()), instances), strict=True):
            found = instances.get(file, Counter())
            truth.named.update(found)
            truth.labels[photo] = dict.fromkeys(found, 1)
    return truth


def from_nus(root: Path, ids: Sequence[str]) -> Truth:
    """Read NUS-WIDE's files of labels.

    Raises:
        UserError: a file is missing or damaged, or a photo has no labels.

    """
    labels = nus.read_labels(root)
    truth = Truth(known=set(labels.concepts))
    for photo, row in zip(ids, labels.rows_of(ids), strict=True):
        values = labels.values[row]
        truth.labels[photo] = {labels.concepts[i]: int(values[i]) for i in np.flatnonzero(values)}
    positives = (labels.values[labels.rows_of(ids)] == 1).sum(axis=0)
    truth.named = Counter(dict(zip(labels.concepts, positives.tolist(), strict=True)))
    return truth


def from_csv(path: Path, photos: PhotoNames, classes: Sequence[str], setting: str = SETTING) -> Truth:
    """Read a CSV of true labels.

    A column of PHOTO_COLUMNS names the photo (see `PhotoNames`). Its labels stand in one of three forms:

    - a column of LABEL_COLUMNS with names separated by `;`, empty for none. A class that the file names anywhere is
      negative in photos whose rows do not name it. Unless the column is called `labels`, a photo may have several rows.
    - such a column and `present` (1, 0 or -1): what no row says is unknown.
    - a column per class (1, 0, and -1 or empty for unknown).

    Args:
        path: the CSV.
        photos: what photos are called.
        classes: C names.
        setting: dotted name of the setting that names the file, for messages.

    Raises:
        UserError: the file is missing or not such a CSV, contradicts itself, or names none of the photos or none of the
            classes.

    """
    table = _read(path, setting)
    rows = _parse(table, classes, path, setting)
    ids = find_photos(table, photos, path, setting)
    truth = Truth(named=rows.named, known=rows.known, strange=ids.count(None), exhaustive=rows.exhaustive)
    rows_of: dict[str, list[int]] = {}
    for row, photo in enumerate(ids):
        if photo is not None:
            rows_of.setdefault(photo, []).append(row)
    for photo, at in rows_of.items():
        truth.labels[photo] = rows.labels[at[0]]
        if len(at) > 1:
            truth.labels[photo] = _merged(at, rows, f"{setting}: {path}", table.index, photo)
    return truth


def check_csv(path: Path, classes: Sequence[str], photos: PhotoNames | None = None) -> None:
    """Check a CSV of true labels without taking its labels.

    Args:
        path: the CSV.
        classes: C names.
        photos: what photos are called; None where that is not known yet.

    Raises:
        UserError: the file is missing or not such a CSV, or names none of the classes or none of the photos.

    """
    table = _read(path, SETTING)
    _parse(table, classes, path, SETTING)
    if photos is not None and len(photos.ids):
        find_photos(table, photos, path, SETTING, warn=False)


def split_labels(labels: str) -> list[str]:
    """Split a field of labels at its semicolons; each name once."""
    return list(dict.fromkeys(name.strip() for name in labels.split(";") if name.strip()))


def meant_by(names: Iterable[str], classes: Sequence[str]) -> dict[str, str]:
    """Find the classes that are meant by names.

    A name means the class that equals it, however accents are composed, or else the only class that differs from it in
    case, spaces and underscores alone.

    Returns:
        Name -> class; names that mean no class are left out.

    """
    exact = {nfc(name): name for name in classes}
    folds = Counter(map(_fold, classes))
    loose = {_fold(name): name for name in classes if folds[_fold(name)] == 1}
    found = {name: exact.get(nfc(name)) or loose.get(_fold(name)) for name in names}
    return {name: meant for name, meant in found.items() if meant is not None}


def adopt(truth: Truth, classes: Sequence[str]) -> None:
    """Call labels as `classes` do, where their spelling differs (see `meant_by`), and say so."""
    meant = meant_by({*truth.named, *truth.known}, classes)
    changed = {name: own for name, own in meant.items() if name != own}
    if not changed:
        return
    pairs = [f"{name!r} as {own!r}" for name, own in sorted(changed.items()) if nfc(name) != nfc(own)]
    if pairs:
        log.warning("names of the truth that differ in case or spaces are read as classes: %s", some(pairs))
    truth.known = {changed.get(name, name) for name in truth.known}
    named: Counter[str] = Counter()
    for name, count in truth.named.items():
        named[changed.get(name, name)] += count
    truth.named = named
    for photo, labels in truth.labels.items():
        if not changed.keys().isdisjoint(labels):
            own: dict[str, int] = {}
            for name, value in labels.items():
                called = changed.get(name, name)
                own[called] = max(value, own.get(called, value))
            truth.labels[photo] = own


def absent_classes(classes: Sequence[str], known: Iterable[str], where: str, *, benchmark: bool = False) -> list[str]:
    """Name the classes that truth knows nothing of.

    Args:
        classes: C names.
        known: names that the truth uses.
        where: setting and file, for messages.
        benchmark: the truth is a benchmark's, which knows all of its classes.

    Raises:
        UserError: it knows none of the classes, or not all of a benchmark's.

    """
    names = set(known)
    meant = set(meant_by(names, classes).values())
    absent = [name for name in classes if name not in meant]
    if not absent or (meant and not benchmark):
        return absent
    raise UserError(
        f"classes: {where} names {'not all' if meant else 'none'} of the {len(classes)} classes, and not "
        f"{some(absent)}; correct the spelling in classes or there (its other names: "
        f"{some(sorted(names - set(classes))) or 'none'})"
    )


def to_table(truth: Truth, ids: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """Lay labels out as column id and one int8 column per class, in the order of `ids`.

    A class is 1 positive, 0 negative, or -1 not known, as it is throughout where the truth does not know it. Photos
    that the truth does not hold are left out.
    """
    held = [name for name in ids if name in truth.labels]
    column = {name: i for i, name in enumerate(classes)}
    values = np.zeros((len(held), len(classes)), dtype=np.int8)
    values[:, [not truth.exhaustive or name not in truth.known for name in classes]] = -1
    for row, photo in enumerate(held):
        for name, value in truth.labels[photo].items():
            if name in column:
                values[row, column[name]] = value
    return pd.DataFrame({"id": held} | {label_column(name): values[:, i] for name, i in column.items()})


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
    if not any(name in table.columns for name in PHOTO_COLUMNS):
        raise UserError(
            f"{setting}: {path} needs the columns {FORMS}; none of its columns names the photo "
            f"({some([str(name) for name in table.columns])}): call that column path or id"
        )
    return table


def _parse(table: pd.DataFrame, classes: Sequence[str], path: Path, setting: str) -> _Rows:
    where = f"{setting}: {path}"
    wide = {str(name): own for name, own in meant_by(map(str, table.columns), classes).items()}
    photos = [name for name in PHOTO_COLUMNS if name in table.columns]
    for name in photos:
        if name in wide and (len(photos) == 1 or not _holds_values(table[name])):
            del wide[name]  # names the photo, and is not the class that is called so
    column = next((name for name in LABEL_COLUMNS if name in table.columns), None)
    if column in wide and _holds_values(table[column]):
        column = None  # the class that is called so
    if column is None and not wide:
        raise UserError(
            f"{where} needs the columns {FORMS}; no column is called labels or like one of the classes "
            f"({some([str(name) for name in table.columns])})"
        )
    if table.empty:
        raise UserError(f"{where} holds no row but its column names; add the labels, or set null for none")
    if column is None:
        rows = _of_columns(table, list(wide), where)
    elif PRESENT in table.columns:
        rows = _of_claims(table, column, where)
    else:
        rows = _of_lists(table, column, classes, where)
    absent_classes(classes, rows.known, where)
    return rows


def _of_lists(table: pd.DataFrame, column: str, classes: Sequence[str], where: str) -> _Rows:
    exact = {nfc(name) for name in classes if ";" in name}
    split = {text: [text] if nfc(text) in exact else split_labels(text) for text in table[column].unique()}
    named: Counter[str] = Counter()
    for text, count in table[column].value_counts().items():
        named.update(dict.fromkeys(split[str(text)], int(count)))
    meant = meant_by(named, classes)
    for name in named.keys() - meant.keys():
        parts = [part for part in re.split(r"[,|/\t]", name) if part.strip()]
        if len(parts) > 1 and len(meant_by(parts, classes)) == len(set(parts)):
            line = next(line for line, text in table[column].items() if name in split[text])
            raise UserError(
                f"{where}, line {line}, column {column}: {name!r} is no class but several; separate labels by ;"
            )
    labels = [dict.fromkeys(split[text], 1) for text in table[column]]
    return _Rows(labels, named, set(named), unsaid=0 if column == "labels" else -1)


def _of_claims(table: pd.DataFrame, column: str, where: str) -> _Rows:
    values = _values(table, PRESENT, where).tolist()
    labels = [{name: value} if name else {} for name, value in zip(table[column], values, strict=True)]
    named = Counter(name for row in labels for name, value in row.items() if value == 1)
    known = {name for row in labels for name, value in row.items() if value >= 0}
    return _Rows(labels, named, known, unsaid=-1, exhaustive=False)


def _of_columns(table: pd.DataFrame, names: list[str], where: str) -> _Rows:
    values = np.stack([_values(table, name, where) for name in names], axis=1)
    labels: list[dict[str, int]] = [{} for _ in range(len(table))]
    for row, i in zip(*np.nonzero(values), strict=True):
        labels[row][names[i]] = int(values[row, i])
    known = {name for name, column in zip(names, values.T, strict=True) if (column >= 0).any()}
    named = Counter(dict(zip(names, (values == 1).sum(axis=0).tolist(), strict=True)))
    return _Rows(labels, named, known, unsaid=0)


def _holds_values(column: "pd.Series[str]") -> bool:
    return bool(column.str.lower().isin(VALUES.keys()).all())


def _values(table: pd.DataFrame, column: str, where: str) -> npt.NDArray[np.int8]:
    values = table[column].str.lower().map(VALUES)
    if values.isna().any():
        line = table.index[int(np.argmax(values.isna()))]
        value = table[column][line]
        raise UserError(
            f"{where}, line {line}, column {column}: {value!r} is neither 1, 0 nor empty; write one of these"
        )
    return values.to_numpy().astype(np.int8)


def _merged(at: list[int], rows: _Rows, where: str, lines: pd.Index, photo: str) -> dict[str, int]:
    """Merge the rows of one photo, refusing two that contradict each other."""
    merged: dict[str, int] = {}
    for name in dict.fromkeys(name for row in at for name in rows.labels[row]):
        said: dict[int, int] = {}
        for row in at:
            said.setdefault(rows.labels[row].get(name, rows.unsaid), lines[row])
        said.pop(-1, None)
        if len(said) > 1:
            raise UserError(
                f"{where} names {photo!r} twice: {name!r} is there by line {said[1]} and not by line {said[0]}; keep "
                "one row a photo"
            )
        merged[name] = next(iter(said), -1)
    return merged


def _fold(name: str) -> str:
    return " ".join(nfc(name).casefold().replace("_", " ").split())
