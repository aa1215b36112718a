"""True labels, from the annotations of a benchmark's layout or a CSV; for evaluation only."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from cutsew.data import coco, csv_file, nus, voc
from cutsew.errors import UserError

COUNTS = {"negative": 0, "ignore": -1, "positive": 1}
"""What an object seen only as difficult counts as."""


@dataclass
class Truth:
    """Labels of photos.

    Attributes:
        labels: id -> class -> 1 positive or -1 not counted; classes not named are negative.
        named: every label name met, those outside the classes included, and how often.
        strange: rows whose photo is not in the manifest (CSV only).
        known: names that the annotations may use, also those that no photo has (COCO and NUS-WIDE).

    """

    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    named: Counter[str] = field(default_factory=Counter)
    strange: int = 0
    known: set[str] = field(default_factory=set)


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
    return truth


def from_coco(root: Path, lists: Mapping[str, Sequence[str]]) -> Truth:
    """Read COCO's instances: a category is positive where any object or crowd of it is annotated.

    Args:
        root: folder of the layout.
        lists: name of each list -> ids of its photos that are in the manifest.

    Raises:
        UserError: a file is missing or damaged.

    """
    truth = Truth()
    for name, ids in lists.items():
        instances, categories = coco.read_instances(root, name, "dataset.coco")
        truth.known.update(categories)
        for photo in ids:
            found = instances.get(photo, Counter())
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


def from_csv(path: Path, ids_of: Mapping[str, Mapping[str, str]]) -> Truth:
    """Read a CSV with the columns `labels` (names separated by `;`, empty for none) and `path` or `id`.

    Args:
        path: the CSV.
        ids_of: column (`id`, `path`) -> what may stand in it -> id of the photo.

    Raises:
        UserError: the file is missing or not such a CSV, names a photo twice, or none of the manifest's.

    """
    table, key = read_csv(path)
    truth = Truth()
    for name, labels in zip(table[key].str.strip(), table["labels"], strict=True):
        found = split_labels(labels)
        truth.named.update(found)
        photo = ids_of[key].get(str(PurePosixPath(name)) if key == "path" else name)
        if photo is None:
            truth.strange += 1
            continue
        if photo in truth.labels:
            raise UserError(f"dataset.truth: {path} names {name} twice; keep one row a photo, labels separated by ;")
        truth.labels[photo] = dict.fromkeys(found, 1)
    if not truth.labels:
        raise UserError(f"dataset.truth: {path} names none of the photos in column {key}; use paths below dataset.root")
    return truth


def read_csv(path: Path) -> tuple[pd.DataFrame, str]:
    """Read the CSV of labels as text; return it and the name of its key column, `id` before `path`.

    Raises:
        UserError: the file is missing or lacks a column.

    """
    table = csv_file.read_csv(path, "dataset.truth", spaces=True)
    key = next((name for name in ("id", "path") if name in table.columns), None)
    if key is None or "labels" not in table.columns:
        raise UserError(f"dataset.truth: {path} needs the columns path (or id) and labels; mend its first line")
    return table, key


def split_labels(labels: str) -> list[str]:
    """Split a field of labels at its semicolons; each name once."""
    return list(dict.fromkeys(name.strip() for name in labels.split(";") if name.strip()))


def refuse_absent(classes: Sequence[str], named: Iterable[str], where: Path) -> None:
    """Refuse classes that the truth never names: more often a slip of spelling than a class without photos.

    Raises:
        UserError: there is such a class.

    """
    known = set(named)
    absent = [name for name in classes if name not in known]
    if absent:
        raise UserError(
            f"classes: {', '.join(absent)} never named in {where}; correct the spelling or remove from classes "
            f"(named there: {_some(sorted(known - set(classes)))})"
        )


def to_table(truth: Truth, ids: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """Lay labels out as column id and one int8 column per class (1, 0 or -1), in the order of `ids`.

    Photos that the truth does not hold are left out.
    """
    held = [name for name in ids if name in truth.labels]
    column = {name: i for i, name in enumerate(classes)}
    values = np.zeros((len(held), len(classes)), dtype=np.int8)
    for row, photo in enumerate(held):
        for name, value in truth.labels[photo].items():
            if name in column:
                values[row, column[name]] = value
    table = pd.DataFrame(values, columns=list(classes))
    table.insert(0, "id", held, allow_duplicates=True)
    return table


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "nothing else"
    return f"{shown}, ..." if len(names) > 5 else shown
