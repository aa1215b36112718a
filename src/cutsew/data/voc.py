"""PASCAL VOC layout: ImageSets/Main/<list>.txt, JPEGImages/<id>.jpg, Annotations/<id>.xml."""

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cutsew.data.folder import read_lines
from cutsew.data.images import SUFFIXES
from cutsew.errors import UserError

SAMPLE = 100
"""Images that are looked for to find out whether the lines of a list end in a label."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One annotated object of an image."""

    name: str
    difficult: bool


class _Doctype(Exception):  # noqa: N818
    """A document type declaration, the only place where XML entities can be declared."""


class _Builder(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        raise _Doctype


def image_paths(root: Path, names: Sequence[str]) -> list[str]:
    """Return where the images of ids lie; as text, since there may be a great many.

    An image that is not there with the suffix .jpg is looked for with any other, in any case.
    """
    start = root / "JPEGImages"
    available = {entry.name for entry in os.scandir(start)} if start.is_dir() else set()
    others: dict[str, str] = {}
    for file in sorted(available):
        stem, dot, suffix = file.rpartition(".")
        if f".{suffix}".lower() in SUFFIXES and dot:
            others.setdefault(stem, file)
    files = (f"{name}.jpg" if f"{name}.jpg" in available else others.get(name, f"{name}.jpg") for name in names)
    return [f"{start}/{file}" for file in files]


def annotation_path(root: Path, name: str) -> Path:
    """Return where the annotation of an id lies."""
    return root / "Annotations" / f"{name}.xml"


def list_path(root: Path, name: str) -> Path:
    """Return where a list of ids lies."""
    return root / "ImageSets" / "Main" / f"{name}.txt"


def read_list(root: Path, name: str, setting: str) -> list[str]:
    """Read the ids of a list, in order, each once.

    A class file (`<class>_<list>.txt`, with 1, 0 or -1 in a second column) is read as a list too; its second column is
    a true label and not looked at. Ids may hold spaces.

    Args:
        root: folder of the layout.
        name: of the list, without `.txt`.
        setting: dotted setting to name when the list is missing.

    Raises:
        UserError: the list is missing, not text or names no image.

    """
    path = list_path(root, name)
    lines = [line for line in map(str.strip, read_lines(path, setting)) if line]
    with_labels = [re.fullmatch(r"(.*\S)\s+(?:-1|0|1)", line) for line in lines]
    # "my photo 1" is an id of its own where not all lines end so, or where there is such an image.
    if all(with_labels) and not any(map(os.path.exists, image_paths(root, lines[:SAMPLE]))):
        lines = [class_id[1] for class_id in with_labels if class_id]
    ids = list(dict.fromkeys(lines))
    outside = next((name for name in ids if name.startswith("/") or ".." in name.split("/")), None)
    if outside is not None:
        raise UserError(f"{setting}: {path} names {outside}, which would lie outside dataset.root; fix the list")
    if not ids:
        raise UserError(f"{setting}: {path} names no image; name another list")
    return ids


def class_names_of_lists(root: Path) -> set[str]:
    """Name the classes that have a class file, `ImageSets/Main/<class>_<list>.txt`; no file is opened."""
    return {path.stem.rpartition("_")[0] for path in root.joinpath("ImageSets", "Main").glob("*_*.txt")}


def read_annotation(path: Path) -> list[AnnotatedObject]:
    """Read the objects of an annotation.

    Raises:
        UserError: the file is missing, not XML, has an object without a name, or declares a document type: that is
            where entities are declared, and none is ever expanded.

    """
    parser = ET.XMLParser(target=_Builder())
    try:
        tree = ET.fromstring(path.read_bytes(), parser=parser)
    except FileNotFoundError:
        raise UserError(f"{path}: no such annotation; add it, or take its id out of the list") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    except _Doctype:
        raise UserError(f"{path}: declares a document type, which is refused; remove its DOCTYPE") from None
    except (ET.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: not XML ({error}); fix this annotation") from None
    return [_object(path, element) for element in tree.iter("object")]


def _object(path: Path, element: ET.Element) -> AnnotatedObject:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{path}: an object has no name; fix this annotation")
    return AnnotatedObject(name, (element.findtext("difficult") or "0").strip() == "1")
