"""Images of any nested folder, on this machine or behind a URL, listed without opening any."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from cutsew.data import remote
from cutsew.data.images import SUFFIXES
from cutsew.errors import UserError

SYSTEM_FOLDERS = frozenset(
    ["@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "__macosx"]
    + ["lost+found"]
)
"""Folders of operating systems and of network storage: thumbnails, waste, metadata. Their images are nobody's."""

NO_SUFFIX = "no suffix"
LINKED = "link to a folder that is searched anyway"


@dataclass(frozen=True)
class Leftover:
    """What a walk of a folder found and took for no image.

    Attributes:
        path: the file or folder.
        kind: `other` for a file of another kind, `hidden` for a hidden file, `folder` for a folder (or a link to one)
            that was not searched, `missing` for a listed name without an image, `dropped` for an image that a setting
            leaves out.
        reason: a few plain words.

    """

    path: str
    kind: Literal["other", "hidden", "folder", "missing", "dropped"]
    reason: str

    @property
    def suffix(self) -> str:
        """The file's suffix in lower case, with its dot; `NO_SUFFIX` where there is none."""
        return suffix_of(self.path)


def suffix_of(path: str) -> str:
    """Return the suffix of a file's name in lower case, with its dot; `NO_SUFFIX` where there is none."""
    return PurePosixPath(path).suffix.lower() or NO_SUFFIX


def walk(root: Path, *, tolerant: bool = False) -> Iterator[str | Leftover]:
    """Walk all files below a folder in no promised order, quickly and without opening any.

    Images are recognized by suffix, upper or lower case, and are yielded as paths; everything else as a `Leftover`.
    Hidden folders and `SYSTEM_FOLDERS` are not searched. Links are followed: to an image always (a broken one is
    yielded, for the manifest to complain about); to a folder unless it lies in `root`, whose images are found there
    anyway, or was seen before. So a loop of links ends.

    Args:
        root: the folder.
        tolerant: give a folder that cannot be listed as a `Leftover` instead of raising; `root` itself always raises.

    Raises:
        UserError: a folder is missing or unreadable, or the name of an image or folder is not UTF-8.

    """
    home = root.resolve()
    seen: set[tuple[int, int]] = set()
    waiting = [str(root)]
    if not root.is_dir():
        raise UserError(f"dataset.root: {root} is not a folder; set it to the folder of the images")
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116  # no Path objects: there may be a million of them
            if (status.st_dev, status.st_ino) in seen:
                yield Leftover(folder, "folder", LINKED)
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                entries = list(listed)
        except OSError as error:
            reason = f"cannot be listed: {(error.strerror or type(error).__name__).lower()}"
            if tolerant and folder != str(root):
                yield Leftover(folder, "folder", reason)
                continue
            raise UserError(f"{folder}: {reason}; make it readable, or move it out of the folder of images") from None
        real: list[str] = []
        links: list[str] = []
        for entry in entries:
            entry_or_error = _sort(entry, home)
            if isinstance(entry_or_error, list):
                (links if entry.is_symlink() else real).extend(entry_or_error)
            else:
                yield entry_or_error
        # Links are taken last and in order, so that the place of an image reachable in two ways is always the same.
        waiting = sorted(links, reverse=True) + waiting + sorted(real, reverse=True)


def scan(root: Path, *, tolerant: bool = False) -> Iterator[str]:
    """Walk the paths of a folder's images alone (see `walk`)."""
    return (name for name in walk(root, tolerant=tolerant) if isinstance(name, str))


def list_images(root: Path, leftovers: list[Leftover] | None = None, *, tolerant: bool = False) -> list[str]:
    """List a folder's images as sorted POSIX paths relative to it, which are their ids.

    Args:
        root: the folder.
        leftovers: all else that is there is added to it.
        tolerant: as of `walk`.

    Raises:
        UserError: as `walk`.

    """
    start = len(str(root).rstrip("/")) + 1
    images: list[str] = []
    for entry in walk(root, tolerant=tolerant):
        if isinstance(entry, str):
            images.append(entry[start:])
        elif leftovers is not None:
            leftovers.append(entry)
    return sorted(images)


def list_remote_images(root: str, leftovers: list[Leftover] | None = None) -> dict[str, str]:
    """List the images below a URL: id (path below it) -> URL, sorted by id; all else goes to `leftovers`.

    Raises:
        UserError: the URL cannot be listed.

    """
    images: dict[str, str] = {}
    for url in remote.find_files(root):
        name = remote.relative(url, root)
        parts = PurePosixPath(name).parts
        hidden = any(part.startswith(".") or part.lower() in SYSTEM_FOLDERS for part in parts)
        if not hidden and name.lower().endswith(SUFFIXES):
            images[name] = url
        elif leftovers is not None:
            leftovers.append(
                Leftover(url, "hidden" if hidden else "other", "hidden file" if hidden else "not an image")
            )
    return dict(sorted(images.items()))


def read_lines(path: Path, setting: str) -> list[str]:
    """Read the lines of a UTF-8 text file that a dotted setting names.

    Raises:
        UserError: the file is missing, unreadable or not UTF-8.

    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{setting}: {path} does not exist; name an existing file") from None
    except UnicodeDecodeError:
        raise UserError(f"{setting}: {path} is not a UTF-8 text file; save it as one") from None
    except OSError as error:
        raise UserError(f"{setting}: {path} cannot be read ({error.strerror}); name a readable file") from None


def _is(kind: Callable[[], bool]) -> bool:
    """Check whether an entry is of a kind; a link to itself is of none."""
    try:
        return kind()
    except OSError:
        return False


def _sort(entry: os.DirEntry[str], home: Path) -> str | Leftover | list[str]:
    """Tell what an entry of a folder is: the path of an image, something else, or (in a list) a folder to search."""
    hidden = entry.name.startswith(".")
    if _is(entry.is_dir):
        if hidden or entry.name.lower() in SYSTEM_FOLDERS:
            return Leftover(entry.path, "folder", f"{'hidden' if hidden else 'system'} folder, not searched")
        if entry.is_symlink() and Path(entry.path).resolve().is_relative_to(home):
            return Leftover(entry.path, "folder", LINKED)
        return [_text(entry)]
    if hidden:
        return Leftover(entry.path, "hidden", "hidden file")
    if entry.name.lower().endswith(SUFFIXES) and (_is(entry.is_file) or entry.is_symlink()):
        return _text(entry)
    return Leftover(entry.path, "other", _other(entry))


def _text(entry: os.DirEntry[str]) -> str:
    """Return the path of an image or folder, whose name becomes part of an id."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{entry.path!a}: this name is not UTF-8; rename it") from None
    return entry.path


def _other(entry: os.DirEntry[str]) -> str:
    if _is(entry.is_file):
        return "of another kind"
    return "broken link" if entry.is_symlink() else "not a file: a pipe, socket or device"
