"""Labels as files that annotation tools import: Label Studio's tasks with predictions, CVAT's image tags."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from cutsew.audit.label_export import Labels
from cutsew.audit.label_formats import json_file, refuse_without_files, said_of, shown, write_list
from cutsew.data.image_bytes import is_local_file
from cutsew.errors import UserError
from cutsew.method.correct import LEFT
from cutsew.storage.atomic import atomic_path, write_text

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves the files below its LOCAL_FILES_DOCUMENT_ROOT."""

TAG = "labels"
"""Name of the choices in Label Studio's labeling interface."""

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write."""


def write_label_studio(path: Path, labels: Labels, root: Path | None = None, url: str | None = None) -> int:
    """Write a JSON list of Label Studio tasks, and the labeling interface next to it; return how many labels.

    A task's `data` has `image`, a URL; `id`; `split`; `stage`; and `by_human`, class -> 1 or 0, what a human said. Its
    prediction has the labels as choices. `score` is that of the least certain class: the larger of its probability and
    one minus it.

    Args:
        path: the .json; the interface is the .xml of that name.
        labels: the labels.
        root: Label Studio's LOCAL_FILES_DOCUMENT_ROOT, or what `url` serves; None for the root of the file system.
        url: what a path below `root` is appended to, percent-encoded; None for LOCAL_FILES.

    Raises:
        UserError: an image has no file, or lies outside `root`; a class cannot be written in XML.

    """
    refuse_without_files("labelstudio", labels)
    interface = _interface(labels.classes)
    with json_file(path) as out:
        out.write("[\n")
        tasks = _tasks(labels, (root or Path("/")).resolve(), LOCAL_FILES if url is None else url)
        count = sum(write_list(out, tasks))
        out.write("]\n")
    write_text(path.with_suffix(".xml"), interface)
    return count


def _tasks(labels: Labels, root: Path, url: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Give each task, and how many labels it has."""
    stated = said_of(labels)
    for batch in shown(labels):
        model = f"cutsew {batch.stage}"
        for name, file, split, named, p in batch.rows(("id", "path", "split"), batch.named, batch.confidence):
            data = {"image": url + quote(_below(file, root)), "id": name, "split": split, "stage": batch.stage}
            data["by_human"] = stated.get(name, {})
            choices = {"choices": [labels.classes[c] for c in np.flatnonzero(named)]}
            result = {"from_name": TAG, "to_name": "image", "type": "choices", "value": choices}
            score = float(np.maximum(p, 1 - p).min())
            prediction = {"model_version": model, "score": score, "result": [result]}
            yield {"data": data, "predictions": [prediction]}, int(named.sum())


def _interface(classes: list[str]) -> str:
    choices = "\n".join(f"    <Choice value={_attribute(name, 'class')}/>" for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="{TAG}" toName="image" choice="multiple">\n{choices}\n  </Choices>\n</View>\n'
    )


def write_cvat(path: Path, labels: Labels, root: Path | None = None) -> int:
    """Write image tags in the format "CVAT for images 1.1"; return how many.

    CVAT finds an image by its name in the task: its path below `root`. A tag's `source` is manual where a human set it,
    and auto elsewhere.

    Args:
        path: the .xml.
        labels: the labels.
        root: the folder that the task's images were chosen from; None for the folder that holds all of them.

    Raises:
        UserError: a name cannot be written in XML, or an image lies outside `root`.

    """
    if root is None:
        folders = {os.path.dirname(os.path.abspath(file)) for file in labels.images["path"] if _is_file(file)}  # noqa: PTH100, PTH120
        root = Path(os.path.commonpath(folders)) if folders else Path("/")
    root, count = root.resolve(), 0
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8") as out:
        out.write(
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><labels>\n'
        )
        for name in labels.classes:
            text = _attribute(name, "class")[1:-1]
            out.write(f"<label><name>{text}</name><type>tag</type><attributes></attributes></label>\n")
        out.write("</labels></task></meta>\n")
        number = 0
        for batch in shown(labels):
            columns = ("id", "path", "width", "height")
            for name, file, width, height, named, stated in batch.rows(columns, batch.named, batch.said):
                image = _attribute(_below(file, root) if _is_file(file) else name, "image")
                out.write(f'<image id="{number}" name={image} width="{width}" height="{height}">\n')
                for c in np.flatnonzero(named):
                    source = "auto" if stated[c] == LEFT else "manual"
                    out.write(f'<tag label={_attribute(labels.classes[c], "class")} source="{source}"></tag>\n')
                out.write("</image>\n")
                number, count = number + 1, count + int(named.sum())
        out.write("</annotations>\n")
    return count


def _is_file(path: str) -> bool:
    """Check whether an image is a file of its own: not of kind ids, nor in a tar, a Parquet file or behind a URL."""
    return bool(path) and is_local_file(path)


def _below(file: str, root: Path) -> str:
    """Return a path relative to a folder, with slashes; links of the file itself are not followed."""
    place = Path(os.path.abspath(file))  # noqa: PTH100
    for result in (place, place.parent.resolve() / place.name):
        if result.is_relative_to(root):
            return result.relative_to(root).as_posix()
    raise UserError(f"--root: {file} does not lie below {root}; name a folder that holds all images")


def _attribute(text: str, what: str) -> str:
    if NOT_XML.search(text):
        raise UserError(
            f"--format: the {what} {text!r} contains a character that XML does not allow; use another format"
        )
    return quoteattr(text, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;", '"': "&quot;"})
