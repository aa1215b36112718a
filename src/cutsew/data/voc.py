"""PASCAL VOC layout: ImageSets/Main/<list>.txt, JPEGImages/<id>.jpg, Annotations/<id>.xml."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cutsew.data.folder import read_lines
from cutsew.errors import UserError


@dataclass(frozen=True)
class Thing:
    """One annotated object of a photo."""

    name: str
    difficult: bool


class _Doctype(Exception):  # noqa: N818
    """A document type declaration, the only place where XML entities can be declared."""


class _Builder(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        raise _Doctype


def photo_paths(root: Path, names: Sequence[str]) -> list[str]:
    """Return where the photos of ids lie; as text, since there may be a great many."""
    start = root / "JPEGImages"
    return [f"{start}/{name}.jpg" for name in names]


def annotation_path(root: Path, name: str) -> Path:
    """Return where the annotation of an id lies."""
    return root / "Annotations" / f"{name}.xml"


def list_path(root: Path, name: str) -> Path:
    """Return where a list of ids lies."""
    return root / "ImageSets" / "Main" / f"{name}.txt"


def read_list(root: Path, name: str, setting: str) -> list[str]:
    """Read the ids of a list, in order, each once.

    A class file (`<class>_<list>.txt`, with 1, 0 or -1 in a second column) is read as a list too; its second column is
    a true label and not looked at.

    Args:
        root: folder of the layout.
        name: of the list, without `.txt`.
        setting: dotted setting to name when the list is missing.

    Raises:
        UserError: the list is missing, not text or names no photo.

    """
    path = list_path(root, name)
    words = (line.split() for line in read_lines(path, setting))
    ids = list(dict.fromkeys(word[0] for word in words if word))
    outside = next((name for name in ids if name.startswith("/") or ".." in name.split("/")), None)
    if outside is not None:
        raise UserError(f"{setting}: {path} names {outside}, which would lie outside dataset.root; mend the list")
    if not ids:
        raise UserError(f"{setting}: {path} names no photo; name another list")
    return ids


def class_names_of_lists(root: Path) -> set[str]:
    """Name the classes that have a class file, `ImageSets/Main/<class>_<list>.txt`; no file is opened."""
    return {path.stem.rpartition("_")[0] for path in root.joinpath("ImageSets", "Main").glob("*_*.txt")}


def read_annotation(path: Path) -> list[Thing]:
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
        raise UserError(f"{path}: not XML ({error}); mend this annotation") from None
    return [_thing(path, thing) for thing in tree.iter("object")]


def _thing(path: Path, thing: ET.Element) -> Thing:
    name = (thing.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{path}: an object has no name; mend this annotation")
    return Thing(name, (thing.findtext("difficult") or "0").strip() == "1")
