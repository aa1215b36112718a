"""Photos of any nested folder, and which of them are held out."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from cutsew.errors import UserError

SUFFIXES = (".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def scan(root: Path) -> Iterator[os.DirEntry[str]]:
    """Walk a folder's photos in no promised order, quickly and without opening any.

    Photos are told by suffix, upper or lower case. Hidden files and folders are skipped. Links are followed: to a
    photo always (a broken one is yielded, for the manifest to complain about); to a folder unless it lies in `root`,
    whose photos are found there anyway, or was seen before. So a loop of links ends.

    Raises:
        UserError: a folder is missing or unreadable, or a name is not UTF-8.

    """
    home = root.resolve()
    seen: set[tuple[int, int]] = set()
    waiting = [str(root)]
    if not root.is_dir():
        raise UserError(f"dataset.root: {root} is not a folder; set it to the folder of the photos")
    while waiting:
        folder = waiting.pop()
        here = Path(folder).stat()
        if (here.st_dev, here.st_ino) in seen:
            continue
        seen.add((here.st_dev, here.st_ino))
        real, links = [], []
        for entry in _entries(folder):
            if _is(entry.is_dir):
                if not entry.is_symlink():
                    real.append(entry.path)
                elif not Path(entry.path).resolve().is_relative_to(home):
                    links.append(entry.path)
            elif entry.name.lower().endswith(SUFFIXES) and (_is(entry.is_file) or entry.is_symlink()):
                yield entry
        # Links are taken last and in order, so that the place of a photo reachable in two ways is always the same.
        waiting = sorted(links, reverse=True) + waiting + sorted(real, reverse=True)


def list_photos(root: Path) -> list[str]:
    """List a folder's photos (see `scan`) as sorted POSIX paths relative to it, which are their ids."""
    start = len(str(root).rstrip("/")) + 1
    return sorted(entry.path[start:] for entry in scan(root))


def in_folder(ids: list[str], folder: str) -> set[str]:
    """Pick the photos at any depth below a folder of the root.

    Raises:
        UserError: there is none.

    """
    start = f"{PurePosixPath(folder)}/"
    chosen = {name for name in ids if name.startswith(start)}
    if not chosen:
        raise UserError(f"dataset.test.folder: no photos in {folder}; name a folder below dataset.root that holds some")
    return chosen


def in_list(ids: list[str], path: Path) -> set[str]:
    """Pick the photos that a text file names, one path relative to the root a line; empty lines are skipped.

    Raises:
        UserError: the file is missing or not text, or names a photo that is not in `ids`.

    """
    lines = (line.strip() for line in read_lines(path, "dataset.test.list"))
    chosen = {str(PurePosixPath(line)) for line in lines if line}
    strange = sorted(chosen - set(ids))
    if strange:
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        raise UserError(
            f"dataset.test.list: {path} names {strange[0]}{more}, not a photo below dataset.root; mend the list"
        )
    return chosen


def in_fraction(digest: str, fraction: float) -> bool:
    """Tell whether a photo is held out, from its content alone, so that new photos never move old ones.

    Args:
        digest: SHA-256 of the file, as hexadecimal text.
        fraction: share of the photos to hold out, in (0, 1).

    """
    return int(digest[:13], 16) < fraction * 16**13  # 52 bits, which a float holds exactly


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
    """Tell whether an entry is of a kind; a link to itself is of none."""
    try:
        return kind()
    except OSError:
        return False


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); make it readable") from None
    for entry in entries:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{entry.path!a}: this name is not UTF-8; rename it") from None
    return entries
