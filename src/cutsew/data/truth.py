"""True labels, from the annotations of a benchmark's layout or a CSV; for evaluation only."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cutsew.data import coco, nus, voc
from cutsew.data.csv_file import nfc
from cutsew.errors import lacks_classes, some
from cutsew.storage.tables import label_column

log = logging.getLogger(__name__)


COUNTS = {"negative": 0, "ignore": -1, "positive": 1}
"""What an object seen only as difficult counts as."""


@dataclass
class Truth:
    """Labels of images.

    Attributes:
        labels: id -> class -> 1 positive, 0 negative or -1 not known.
        named: every label name met, those outside the classes included, and how often.
        strange: rows whose image is not in the manifest (CSV only).
        known: names that the annotations may use, also those that no image has.
        exhaustive: a known class that an image's labels do not name is negative there, and not unknown.

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
        names: ids of the images.
        difficult: negative, ignore or positive: how a class counts whose objects in an image are all marked difficult.

    Raises:
        UserError: an annotation is missing or damaged.

    """
    truth = Truth()
    for name in names:
        labels: dict[str, int] = {}
        for annotated in voc.read_annotation(voc.annotation_path(root, name)):
            truth.named[annotated.name] += 1
            value = COUNTS[difficult] if annotated.difficult else 1
            labels[annotated.name] = 1 if 1 in (value, labels.get(annotated.name)) else value
        truth.labels[name] = labels
    truth.known = set(truth.named) | voc.class_names_of_lists(root)
    return truth


def from_coco(root: Path, lists: Mapping[str, Mapping[str, str]]) -> Truth:
    """Read COCO's instances: a category is positive where any object or crowd of it is annotated.

    Args:
        root: folder of the layout.
        lists: name of each list -> id -> path of its images that are in the manifest.

    Raises:
        UserError: a file is missing or damaged.

    """
    truth = Truth()
    for name, images in lists.items():
        instances, categories = coco.read_instances(root, name, "dataset.coco")
        truth.known.update(categories)
        for image, file in zip(images, coco.file_names(root, name, list(images.values()), instances), strict=True):
            counts = instances.get(file, Counter())
            truth.named.update(counts)
            truth.labels[image] = dict.fromkeys(counts, 1)
    return truth


def from_nus(root: Path, ids: Sequence[str]) -> Truth:
    """Read NUS-WIDE's files of labels.

    Raises:
        UserError: a file is missing or damaged, or an image has no labels.

    """
    labels = nus.read_labels(root)
    truth = Truth(known=set(labels.concepts))
    for image, row in zip(ids, labels.rows_of(ids), strict=True):
        values = labels.values[row]
        truth.labels[image] = {labels.concepts[i]: int(values[i]) for i in np.flatnonzero(values)}
    positives = (labels.values[labels.rows_of(ids)] == 1).sum(axis=0)
    truth.named = Counter(dict(zip(labels.concepts, positives.tolist(), strict=True)))
    return truth


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
    matched = {name: exact.get(nfc(name)) or loose.get(_fold(name)) for name in names}
    return {name: class_name for name, class_name in matched.items() if class_name is not None}


def adopt(truth: Truth, classes: Sequence[str]) -> None:
    """Call labels as `classes` do, where their spelling differs (see `meant_by`), and say so."""
    class_of = meant_by({*truth.named, *truth.known}, classes)
    changed = {name: own for name, own in class_of.items() if name != own}
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
    for image, labels in truth.labels.items():
        if not changed.keys().isdisjoint(labels):
            own_values: dict[str, int] = {}
            for name, value in labels.items():
                called = changed.get(name, name)
                own_values[called] = max(value, own_values.get(called, value))
            truth.labels[image] = own_values


def absent_classes(
    classes: Sequence[str], known: Iterable[str], location: str, *, benchmark: bool = False
) -> list[str]:
    """Name the classes that truth knows nothing of.

    Args:
        classes: C names.
        known: names that the truth uses.
        location: setting and file, for messages.
        benchmark: the truth is a benchmark's, which knows all of its classes.

    Raises:
        UserError: it knows none of the classes, or not all of a benchmark's.

    """
    names = set(known)
    matched = set(meant_by(names, classes).values())
    absent = [name for name in classes if name not in matched]
    if not absent or (matched and not benchmark):
        return absent
    raise lacks_classes(location, absent, len(classes), sorted(names - set(classes)))


def to_table(truth: Truth, ids: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """Convert labels to column id and one int8 column per class, in the order of `ids`.

    A class is 1 positive, 0 negative, or -1 not known, as it is throughout where the truth does not know it. Images
    that the truth does not hold are left out.
    """
    held = [name for name in ids if name in truth.labels]
    column = {name: i for i, name in enumerate(classes)}
    values = np.zeros((len(held), len(classes)), dtype=np.int8)
    values[:, [not truth.exhaustive or name not in truth.known for name in classes]] = -1
    for row, image in enumerate(held):
        for name, value in truth.labels[image].items():
            if name in column:
                values[row, column[name]] = value
    return pd.DataFrame({"id": held} | {label_column(name): values[:, i] for name, i in column.items()})


def _fold(name: str) -> str:
    return " ".join(nfc(name).casefold().replace("_", " ").split())
