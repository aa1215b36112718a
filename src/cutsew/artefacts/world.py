"""The demo's folders of photos and annotations, digested as their writer did."""

import hashlib
from collections.abc import Callable
from pathlib import Path

SUFFIXES = {"JPEGImages": ".jpg", "Annotations": ".xml"}
LISTS = ("train", "val")


def is_world(path: Path) -> bool:
    """Tell whether a record's output is a folder of the demo's files."""
    return path.name in SUFFIXES and path.parent.name == "world"


def folder_digest(folder: Path, digest: Callable[[Path], str]) -> tuple[list[Path], str]:
    """Return files of the lists that are lost, and the digest over all files in the order of the lists."""
    lists = [folder.parent / "ImageSets" / "Main" / f"{name}.txt" for name in LISTS]
    names = [name for path in lists if path.is_file() for name in path.read_text(encoding="utf-8").split()]
    files = [folder / f"{name}{SUFFIXES[folder.name]}" for name in names]
    lost = [path for path in files if not path.is_file()]
    if lost:
        return lost, ""
    return [], hashlib.sha256("\n".join(digest(path) for path in files).encode()).hexdigest()
