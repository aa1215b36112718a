"""Labels as folders of images that training tools open: Hugging Face's imagefolder, a folder per class.

Images are numbered by their row in the manifest, since a loader may take words in a name for a split, a dot for a
hidden file or `::` for a URL; their ids stand in the metadata.
"""

import json
import logging
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from cutsew.audit.label_export import Labels
from cutsew.audit.label_formats import refuse_without_files, shown
from cutsew.errors import UserError, some
from cutsew.method.correct import LEFT
from cutsew.storage.atomic import atomic_path
from cutsew.storage.csv_rows import csv_writer

log = logging.getLogger(__name__)

COLUMNS = ("row", "id", "path", "split")
"""Columns of the manifest that a folder of images needs."""

YOLO_SPLITS = {"train": "train", "test": "val"}
"""Split -> its folder, as Ultralytics calls it."""

LONGEST = 200
"""Bytes of a class's folder name."""


def write_huggingface(folder: Path, labels: Labels, *, copy: bool = False) -> int:
    """Write a folder for `datasets.load_dataset("imagefolder", data_dir=folder)`; return how many labels.

    `<split>/<number>.<suffix>` are the images, `<split>/metadata.jsonl` has for each of them `file_name`, `id`,
    `labels` (names), `probabilities` of those labels (1 for a human's), `by_human` (names that a human set or crossed
    out) and `stage`.

    Args:
        folder: to be written; must not exist, or be empty.
        labels: the labels.
        copy: copy the images; otherwise they are symbolic links.

    Raises:
        UserError: the folder holds something, or an image has no file.

    """
    refuse_without_files("huggingface", labels)
    _refuse_filled(folder)
    place, count = _placing(copy), 0
    with atomic_path(folder) as draft, ExitStack() as files:
        lists: dict[str, IO[str]] = {}
        for batch in shown(labels):
            values = (batch.named, batch.confidence, batch.said != LEFT)
            for row, name, file, split, named, p, by_human in batch.rows(COLUMNS, *values):
                if split not in lists:
                    (draft / split).mkdir(parents=True)
                    out = (draft / split / "metadata.jsonl").open("w", encoding="utf-8")
                    lists[split] = files.enter_context(out)
                called = _numbered(row, file)
                place(file, draft / split / called)
                result = {"file_name": called, "id": name, "labels": [labels.classes[c] for c in np.flatnonzero(named)]}
                result["probabilities"] = [float(value) for value in p[named]]
                result["by_human"] = [labels.classes[c] for c in np.flatnonzero(by_human)]
                lists[split].write(json.dumps(result | {"stage": batch.stage}, ensure_ascii=False) + "\n")
                count += int(named.sum())
    return count


def write_yolo(folder: Path, labels: Labels, *, copy: bool = False) -> int:
    """Write a folder per class, for Ultralytics' classification and torchvision's ImageFolder; count labels.

    `train/<class>/` holds training images, `val/<class>/` held-out ones; an image with several labels is in several
    folders, one without labels is in none. `classes.csv` says which folder is which class, `images.csv` which image is
    which.

    Args:
        folder: to be written; must not exist, or be empty.
        labels: the labels.
        copy: copy the images; otherwise they are symbolic links.

    Raises:
        UserError: the folder holds something, or an image has no file.

    """
    refuse_without_files("yolo", labels)
    _refuse_filled(folder)
    place, names = _placing(copy), folder_names(labels.classes)
    seen: dict[str, set[int]] = defaultdict(set)
    count = without = 0
    with atomic_path(folder) as draft, ExitStack() as files:
        draft.mkdir(parents=True)
        with (draft / "classes.csv").open("w", encoding="utf-8", newline="") as out:
            csv_writer(out).writerows([("folder", "class"), *zip(names, labels.classes, strict=True)])
        table = files.enter_context((draft / "images.csv").open("w", encoding="utf-8", newline=""))
        images = csv_writer(table)
        images.writerow(("file", "id", "split"))
        for batch in shown(labels):
            for row, name, file, split, named in batch.rows(COLUMNS, batch.named):
                called = _numbered(row, file)
                images.writerow((called, name, split))
                result = np.flatnonzero(named)
                without += not len(result)
                for c in map(int, result):
                    home = draft / YOLO_SPLITS[split] / names[c]
                    if c not in seen[split]:
                        home.mkdir(parents=True)
                        seen[split].add(c)
                    place(file, home / called)
                count += len(result)
    if without:
        log.warning("%d images have no label and are in no folder of a class", without)
    differ = seen["train"] ^ seen["test"] if all(split in labels.stages for split in YOLO_SPLITS) else set()
    if differ:
        which = some([labels.classes[c] for c in sorted(differ)])
        log.warning("%s: in one split only, so the two have other class numbers; name them by their folders", which)
    return count


def folder_names(classes: list[str]) -> list[str]:
    """Name a folder after each class: slashes, control characters and a leading dot are replaced, long names cut."""
    result: list[str] = []
    taken: set[str] = set()
    for name in classes:
        plain = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", name.strip()).rstrip(". ")
        plain = re.sub(r"^\.+", "_", plain).encode()[:LONGEST].decode(errors="ignore") or "_"
        number, called = 2, plain
        while called.casefold() in taken:
            number, called = number + 1, f"{plain}-{number}"
        taken.add(called.casefold())
        result.append(called)
    return result


def _refuse_filled(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: already exists; name a new folder")


def _numbered(row: int, file: str) -> str:
    return f"{row:08d}{Path(file).suffix.lower()}"


def _placing(copy: bool) -> Callable[[str, Path], None]:
    def place(file: str, target: Path) -> None:
        source = os.path.abspath(file)  # noqa: PTH100
        if not os.path.isfile(source):  # noqa: PTH113
            raise UserError(f"{file}: no such image here; run this in the folder where the workflow ran")
        if copy:
            shutil.copyfile(source, target)
        else:
            target.symlink_to(source)

    return place
