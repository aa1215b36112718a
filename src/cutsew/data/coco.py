"""COCO layout: annotations/instances_<list>.json, and the images in <list>/, images/<list>/ or images/."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import ijson
import numpy as np
from tqdm import tqdm

from cutsew.errors import UserError, first_line

DEEPEST = 1000
"""Brackets within one another; COCO's own files have six."""

NUMBERS = ("id", "image_id", "category_id")

STEPS = np.zeros(256, np.int8)
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1
"""Byte -> how it changes the nesting."""

SAMPLE = 200
"""Images that are looked for to find out which folder the file names start from."""

Key = int | str
Instances = dict[str, Counter[str]]
"""File name of an image -> how often each category is annotated in it; images without any are not in it."""


def instances_path(root: Path, name: str) -> Path:
    """Return where the annotations of a list lie."""
    return root / "annotations" / f"instances_{name}.json"


def image_folder(root: Path, name: str) -> Path:
    """Return where the images of a list lie: `<list>/` as unpacked, `images/<list>/` or `images/` as others keep them.

    Raises:
        UserError: none of them is a folder.

    """
    for folder in _folders(root, name):
        if folder.is_dir():
            return folder
    raise UserError(
        f"dataset.root: {root} holds neither {name} nor images/{name} nor images, a folder of images; unpack it there"
    )


def list_images(root: Path, name: str, setting: str, *, drop: bool) -> tuple[list[str], list[str], int]:
    """List the images of a list.

    Args:
        root: folder of the layout.
        name: of the list, such as `train2014`.
        setting: dotted setting to name when the list is missing.
        drop: leave out images that nothing is annotated in. Which images have an annotation is then read, but of
            the annotations nothing else.

    Returns:
        Ids (file names without suffix, or with it where two images differ in it alone) and paths, both in the order of
        the file, and how many images were left out.

    Raises:
        UserError: the list or the folder of images is missing, or the file is not an instances JSON.

    """
    path, folder = instances_path(root, name), image_folder(root, name)
    files = _files(path, setting)
    if not files:
        raise UserError(f"{setting}: {path} names no image; name another list")
    kept = files
    if drop:
        named = {_number(item.get("image_id")) for item in _annotations(path, setting)}
        kept = {number: file for number, file in files.items() if number in named}
    start = _start(root, name, list(files.values())) or folder
    return (
        _ids(list(kept.values()), files.values()),
        [f"{start}/{file}" for file in kept.values()],
        len(files) - len(kept),
    )


def file_names(root: Path, name: str, paths: Sequence[str], instances: Container[str]) -> list[str]:
    """Return the file names by which a list's JSON calls images, from their paths as `list_images` gives them."""
    starts = [f"{folder}/" for folder in (*_folders(root, name), root)]
    result = []
    for path in paths:
        names = [path.removeprefix(start) for start in starts if path.startswith(start)]
        result.append(next((file for file in names if file in instances), names[0] if names else path))
    return result


def read_instances(root: Path, name: str, setting: str) -> tuple[Instances, list[str]]:
    """Read what is annotated in each image of a list, crowds (`iscrowd`) included; and the names of all categories.

    Raises:
        UserError: as `list_images`, or an annotation is of an unknown image or category.

    """
    path = instances_path(root, name)
    files = _files(path, setting)
    categories = _categories(path, setting)
    instances: Instances = defaultdict(Counter)
    for item in _annotations(path, setting):
        image, kind = _number(item.get("image_id")), _number(item.get("category_id"))
        image_name = None if image is None else files.get(image)
        category = None if kind is None else categories.get(kind)
        if image_name is None or category is None:
            missing_key = "image_id" if image_name is None else "category_id"
            raise UserError(
                f"{path}: annotation {item.get('id')} refers to an image or category that the file does not list "
                f"({missing_key} {item.get(missing_key)!r}); remove that annotation, or download the file again"
            )
        instances[image_name][category] += 1
    return dict(instances), list(categories.values())


def _folders(root: Path, name: str) -> tuple[Path, ...]:
    return root / name, root / "images" / name, root / "images"


def _start(root: Path, name: str, files: Sequence[str]) -> Path | None:
    """Return the folder that the file names start from: the first below which most of a sample lie, None if none do."""
    sample = files[:: max(1, len(files) // SAMPLE)]
    places = [*_folders(root, name), root]
    counts = [sum((place / file).is_file() for file in sample) for place in places]
    return places[int(np.argmax(counts))] if any(counts) else None


def _ids(names: Sequence[str], every: Iterable[str]) -> list[str]:
    """Call images by their file names without suffix, but where two of the list differ in it alone."""
    counts = Counter(map(_stem, every))
    return [_stem(name) if counts[_stem(name)] == 1 else name for name in names]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _files(path: Path, setting: str) -> dict[Key, str]:
    """Return id -> file name of a list's images, refusing names that would lead out of their folder."""
    files: dict[Key, str] = {}
    names: set[str] = set()
    for item in _items(path, "images.item", setting):
        name = str(item.get("file_name", "")).replace("\\", "/").removeprefix("./")
        parts = name.split("/")
        if any(not part or part.startswith(".") for part in parts):
            raise UserError(
                f"{path}: image {item.get('id')} has no file name below its folder ({name!r}); correct its file_name"
            )
        number = _number(item.get("id"))
        if number is None:
            raise UserError(f"{path}: not an instances JSON of COCO (an image without an id); download it again")
        if number in files or name in names:
            duplicate = f"image {number}, {name}, appears twice"
            raise UserError(f"{path}: not an instances JSON of COCO ({duplicate}); remove one")
        files[number] = name
        names.add(name)
    return files


def _categories(path: Path, setting: str) -> dict[Key, str]:
    categories: dict[Key, str] = {}
    for item in _items(path, "categories.item", setting):
        number, name = _number(item.get("id")), item.get("name")
        if number is None or not isinstance(name, str) or not name.strip():
            raise UserError(f"{path}: category {item.get('id')!r} has no id or no name; correct it")
        if categories.setdefault(number, name) != name:
            raise UserError(f"{path}: category {number} is {categories[number]!r} and {name!r}; keep one")
    return categories


def _number(value: object) -> Key | None:
    """Bring an id to one form: 7, 7.0 and "7" are the same; other text stays; None is what cannot be an id."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and value.isdecimal() and str(int(value)) == value:
        return int(value)
    return value if isinstance(value, (int, str)) and value != "" else None


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
        raise UserError(f"{path}: not an instances JSON of COCO ({first_line(error)}); download it again") from None


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
