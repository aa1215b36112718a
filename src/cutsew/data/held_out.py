"""Which images of a folder are held out: those of a folder in it, of a list, or a fraction (`dataset.test`)."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from cutsew.config.dataset import TestSplitConfig
from cutsew.data.folder import Leftover, read_lines
from cutsew.errors import UserError


def held_out_ids(
    test: TestSplitConfig, ids: Sequence[str], root: Path | None, *, tolerant: bool
) -> tuple[set[str], list[Leftover]]:
    """Pick the images that a folder or a list holds out; none where the settings name neither.

    Args:
        test: the settings.
        ids: of all images.
        root: the folder of all images, if it is one on this machine.
        tolerant: return names of the list that are no images instead of refusing them.

    Returns:
        The images, and the names of the list that are no images.

    Raises:
        UserError: as `in_folder` and `in_list`, or a name of the list is no image.

    """
    if test.folder is not None:
        return in_folder(ids, test.folder, root), []
    if test.list is None:
        return set(), []
    chosen, unmatched = in_list(ids, test.list, root)
    if unmatched and not tolerant:
        more = f" (and {len(unmatched) - 1} more)" if len(unmatched) > 1 else ""
        raise UserError(
            f"dataset.test.list: {test.list} names {unmatched[0]}{more}, not an image below dataset.root; "
            f"{hint(unmatched[0], ids)}, or set dataset.on_bad_image: skip"
        )
    reason = f"named in {test.list} (dataset.test.list), but no such image"
    return chosen, [Leftover(str((root or Path()) / line), "missing", reason) for line in unmatched]


def in_folder(ids: Sequence[str], folder: str, root: Path | None = None) -> set[str]:
    """Pick the images at any depth below a folder of the root.

    Args:
        ids: of all images.
        folder: relative to the root, or absolute and below it.
        root: the folder of all images.

    Raises:
        UserError: there is none.

    """
    prefix = PurePosixPath(folder)
    if root is not None and prefix.is_absolute() and Path(folder).resolve().is_relative_to(root.resolve()):
        prefix = PurePosixPath(Path(folder).resolve().relative_to(root.resolve()))
    if prefix == PurePosixPath():
        raise UserError(f"dataset.test.folder: {folder} is dataset.root itself; name a folder below it")
    start = f"{prefix}/"
    chosen = {name for name in ids if name.startswith(start)}
    if not chosen:
        raise UserError(f"dataset.test.folder: no images in {folder}; name a folder below dataset.root that holds some")
    return chosen


def in_list(ids: Sequence[str], path: Path, root: Path | None = None) -> tuple[set[str], list[str]]:
    """Pick the images that a text file names, one path relative to the root a line; empty lines are skipped.

    Names are also found written as absolute paths below the root, with backslashes, and with accents composed in
    another way (NFC, NFD).

    Args:
        ids: of all images.
        path: the file.
        root: the folder of all images.

    Returns:
        The images, and the lines that name none of `ids`, in order.

    Raises:
        UserError: the file is missing or not text, or none of its lines names an image.

    """
    lines = [line.strip() for line in read_lines(path, "dataset.test.list")]
    known = set(ids)
    composed: dict[str, str] = {}
    chosen: set[str] = set()
    unmatched: list[str] = []
    for line in filter(None, lines):
        name = _relative(line, root)
        if name not in known:
            composed = composed or {normalize("NFC", image): image for image in ids}
            name = composed.get(normalize("NFC", name)) or composed.get(normalize("NFC", name.replace("\\", "/"))) or ""
        if name:
            chosen.add(name)
        else:
            unmatched.append(line)
    if not chosen:
        raise UserError(_none_of(path, unmatched, ids))
    return chosen, unmatched


def hint(line: str, ids: Sequence[str]) -> str:
    """Say how a listed name has to be written, where an image of nearly that name is there; else, what to do."""
    parts = PurePosixPath(line.replace("\\", "/")).parts
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        match = next((name for name in ids if name.lower() == tail.lower()), None)
        if match is not None:
            return f"paths are relative to dataset.root and exact, so write {match}"
    return "correct the list"


def in_fraction(digest: str, fraction: float) -> bool:
    """Check whether an image is held out, from its content alone, so that new images never move old ones.

    Args:
        digest: SHA-256 of the file, as hexadecimal text.
        fraction: share of the images to hold out, in (0, 1).

    """
    return int(digest[:13], 16) < fraction * 16**13  # 52 bits, which a float holds exactly


def _relative(line: str, root: Path | None) -> str:
    name = PurePosixPath(line)
    if root is not None and name.is_absolute():
        for home in (PurePosixPath(root.absolute()), PurePosixPath(root.resolve())):
            if name.is_relative_to(home):
                return str(name.relative_to(home))
    return str(name)


def _none_of(path: Path, unmatched: list[str], ids: Sequence[str]) -> str:
    if not unmatched:
        return f"dataset.test.list: {path} is empty; name the held-out images in it, one path a line"
    return (
        f"dataset.test.list: {path} names {len(unmatched)} images, and none is an image below dataset.root, "
        f"{unmatched[0]} first; {hint(unmatched[0], ids)}"
    )
