"""COCO layout: annotations/instances_<list>.json, and the photos in <list>/ or images/<list>/."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import ijson
import numpy as np
from tqdm import tqdm

from cutsew.errors import UserError

DEEPEST = 1000
"""Brackets within one another; COCO's own files have six."""

NUMBERS = ("id", "image_id", "category_id")

STEPS = np.zeros(256, np.int8)
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1
"""Byte -> how it changes the nesting."""

Instances = dict[str, Counter[str]]
"""Id of a photo -> how often each category is annotated in it; photos without any are not in it."""


def instances_path(root: Path, name: str) -> Path:
    """Return where the annotations of a list lie."""
    return root / "annotations" / f"instances_{name}.json"


def photo_folder(root: Path, name: str) -> Path:
    """Return where the photos of a list lie: `<list>/` as unpacked, or `images/<list>/` where many keep them.

    Raises:
        UserError: neither is a folder.

    """
    for folder in (root / name, root / "images" / name):
        if folder.is_dir():
            return folder
    raise UserError(f"dataset.root: {root} holds neither {name} nor images/{name}, a folder of photos; unpack it there")


def list_photos(root: Path, name: str, setting: str, *, drop: bool) -> tuple[list[str], list[str], int]:
    """List the photos of a list.

    Args:
        root: folder of the layout.
        name: of the list, such as `train2014`.
        setting: dotted setting to name when the list is missing.
        drop: leave out photos that nothing is annotated in. Which photos have an annotation is then read, but of
            the annotations nothing else.

    Returns:
        Ids (file names without suffix) and paths, both in the order of the file, and how many photos were left out.

    Raises:
        UserError: the list or the folder of photos is missing, or the file is not an instances JSON.

    """
    path, folder = instances_path(root, name), photo_folder(root, name)
    files = _files(path, setting)
    if not files:
        raise UserError(f"{setting}: {path} names no photo; name another list")
    kept = files
    if drop:
        named = {item.get("image_id") for item in _annotations(path, setting)}
        kept = {number: file for number, file in files.items() if number in named}
    names = [str(PurePosixPath(file).with_suffix("")) for file in kept.values()]
    return names, [f"{folder}/{file}" for file in kept.values()], len(files) - len(kept)


def read_instances(root: Path, name: str, setting: str) -> tuple[Instances, list[str]]:
    """Read what is annotated in each photo of a list, crowds (`iscrowd`) included; and the names of all categories.

    Raises:
        UserError: as `list_photos`, or an annotation is of an unknown photo or category.

    """
    path = instances_path(root, name)
    ids = {number: str(PurePosixPath(file).with_suffix("")) for number, file in _files(path, setting).items()}
    categories = {item.get("id"): str(item.get("name")) for item in _items(path, "categories.item", setting)}
    found: Instances = defaultdict(Counter)
    for item in _annotations(path, setting):
        photo, category = ids.get(item.get("image_id", -1)), categories.get(item.get("category_id"))
        if photo is None or category is None:
            raise UserError(
                f"{path}: annotation {item.get('id')} is of a photo or category that the file does not list; "
                "get the file anew"
            )
        found[photo][category] += 1
    return dict(found), list(categories.values())


def _files(path: Path, setting: str) -> dict[int, str]:
    """Return number -> file name of a list's photos, refusing names that would lead out of their folder."""
    files: dict[int, str] = {}
    names: set[str] = set()
    for item in _items(path, "images.item", setting):
        name = str(item.get("file_name", ""))
        if not name or "/" in name or "\\" in name or name.startswith("."):
            raise UserError(f"{path}: photo {item.get('id')} has no plain file name ({name!r}); get the file anew")
        number = _number(path, item)
        if number in files or name in names:
            twice = f"photo {number}, {name}, stands twice"
            raise UserError(f"{path}: not an instances JSON of COCO ({twice}); get it anew")
        files[number] = name
        names.add(name)
    return files


def _number(path: Path, item: Mapping[str, Any]) -> int:
    try:
        return int(item["id"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(
            f"{path}: not an instances JSON of COCO (an image without a number as id); get it anew"
        ) from None


def _annotations(path: Path, setting: str) -> Iterator[dict[str, Any]]:
    """Read the annotations one by one, and show how far it is."""
    return iter(tqdm(_items(path, "annotations.item", setting), desc=path.stem, unit="object"))


def _items(path: Path, prefix: str, setting: str) -> Iterator[dict[str, Any]]:
    """Read the items of one of the file's arrays one by one: with its outlines the file is half a gigabyte."""
    try:
        with path.open("rb") as file:
            yield from _objects(file, prefix)
    except FileNotFoundError:
        raise UserError(f"{setting}: {path} does not exist; unpack the annotations there") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    except (ijson.JSONError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not an instances JSON of COCO ({_first_line(error)}); get it anew") from None


def _objects(file: BinaryIO, prefix: str) -> Iterator[dict[str, Any]]:
    for item in ijson.items(_Shallow(file), prefix, use_float=True):
        if not isinstance(item, dict):
            raise TypeError(f"{prefix} is no object")
        if any(isinstance(item.get(name), (dict, list)) for name in NUMBERS):
            raise TypeError(f"{prefix} has an id that is no number")
        yield item


class _Shallow:
    """A file of JSON that is refused where brackets are nested too deeply: the parser's memory grows with the square.

    Brackets within strings are counted too, which no sound file has in such numbers.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._depth = 0

    def read(self, size: int = -1) -> bytes:
        """Read as the file does."""
        data = self._file.read(size)
        if data:
            steps = STEPS[np.frombuffer(data, np.uint8)]
            depths = self._depth + np.cumsum(steps, dtype=np.int64)
            self._depth = int(depths[-1])
            if depths.max() > DEEPEST:
                raise ValueError(f"nested more than {DEEPEST} deep")
        return data


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
