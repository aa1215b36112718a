"""What became of every file of a dataset: images inspected by threads, the rest counted by suffix and reason."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from cutsew.data.folder import NO_SUFFIX, Leftover, suffix_of
from cutsew.data.images import REMEDIES, BadImage, Inspection, inspect, kind_of

MOST_GROUPS = 40
"""Groups of a suffix and a reason that are counted apart; all further files are counted together."""

MOST_SHOWN = 8
"""Suffixes, or lines of advice, that a message lists."""

_RAW = (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw")
_VIDEO = (".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv")
_ARCHIVE = (".7z", ".bz2", ".gz", ".rar", ".tgz", ".xz", ".zip")
_DRAWING = (".ai", ".eps", ".pdf", ".ps", ".psd", ".svg", ".xcf")
_IMAGE = (".cur", ".dcm", ".dds", ".exr", ".hdr", ".ico", ".jxl", ".nii", ".pbm", ".pgm", ".pnm", ".ppm", ".tga")

WAYS_OUT: dict[str, tuple[str, str]] = {
    **dict.fromkeys(_RAW, ("camera raw", "export it as JPEG or TIFF")),
    **dict.fromkeys(_VIDEO, ("a video", "extract frames as JPEG, for example with ffmpeg")),
    **dict.fromkeys(_ARCHIVE, ("an archive", "unpack it")),
    ".tar": ("a tar", "read its images with dataset.kind: tar, or unpack it"),
    ".parquet": ("a Parquet file", "read its images with dataset.kind: parquet"),
    **dict.fromkeys(_DRAWING, ("a drawing or document", "export it as PNG")),
    **dict.fromkeys(_IMAGE, ("an image format that is not read", "convert it to PNG")),
}
"""Suffix of a file that may show something but is not read -> what it is, and how its content can be used."""

REPAIRS = {
    "truncated": "copy it again from its source",
    "empty file": "copy it again from its source",
    "damaged": "copy it again from its source",
    "truncated or damaged": "copy it again from its source",
    "not an image": "remove it, or correct its name",
    "too large": "scale it down",
    "unreadable: permission denied": "make it readable for this user (chmod u+r)",
    "broken link": "restore what it points to, or remove it",
    **REMEDIES,
}
"""Reason why an image cannot be read -> what to do about it."""


def explain(leftover: Leftover) -> Leftover:
    """Say more about a file of another kind: what its suffix stands for, or that an image hides behind its name."""
    if leftover.kind != "other" or leftover.reason != "of another kind":
        return leftover
    if leftover.suffix in WAYS_OUT:
        what, way = WAYS_OUT[leftover.suffix]
        return Leftover(leftover.path, "other", f"of another kind ({what}); {way}")
    inside = kind_of(Path(leftover.path))
    if inside is None:
        return leftover
    return Leftover(leftover.path, "other", f"holds a {inside} image; give it an image suffix if it should be read")


def rows(bad: Iterable[BadImage], leftovers: Iterable[Leftover]) -> list[tuple[str, str]]:
    """List (path, reason) of everything that is no row of the manifest, sorted; one row per file or folder."""
    entries = [(error.path, error.reason) for error in bad] + [(left.path, left.reason) for left in leftovers]
    return sorted((_plain(path), reason) for path, reason in entries)


def groups(bad: Iterable[BadImage], leftovers: Iterable[Leftover]) -> list[dict[str, Any]]:
    """Count what is no row of the manifest by kind, suffix and reason.

    Returns:
        Dictionaries with the keys kind (`unreadable`, or a `Leftover`'s), label (suffix; of folders, the name), reason
        and count; the largest first, at most `MOST_GROUPS` and one more for the rest.

    """
    counted: Counter[tuple[str, str, str]] = Counter()
    for error in bad:
        reason = "too large" if error.reason.startswith("too large") else error.reason
        counted["unreadable", _plain(suffix_of(error.path)), reason] += 1
    for left in leftovers:
        label = PurePosixPath(left.path).name if left.kind == "folder" else left.suffix
        counted[left.kind, _plain(label), left.reason] += 1
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    grouped = [
        {"kind": kind, "label": label, "reason": reason, "count": count}
        for (kind, label, reason), count in ordered[:MOST_GROUPS]
    ]
    for kind in sorted({key[0] for key, _ in ordered[MOST_GROUPS:]}):
        rest = sum(count for key, count in ordered[MOST_GROUPS:] if key[0] == kind)
        grouped.append({"kind": kind, "label": "further suffixes", "reason": "see skipped.csv", "count": rest})
    return grouped


def summary(facts: Mapping[str, Any]) -> str:
    """Say in one line what became of all files.

    Args:
        facts: of the manifest's record: train, test, listed (how the images were found) and left (see `groups`).

    """
    left = facts["left"]
    files = (
        facts["train"] + facts["test"] + sum(row["count"] for row in left if row["kind"] not in ("folder", "missing"))
    )
    parts = [f"{facts['train']:,} training", f"{facts['test']:,} held out", *counts(left)]
    what = "file" if facts["listed"] == "folder" else "listed image"
    return f"{files:,} {what}{'' if files == 1 else 's'}: {', '.join(parts)}"


def counts(left: Sequence[Mapping[str, Any]]) -> list[str]:
    """Word the counts of `groups`, one text per kind: `4 of other kinds (.txt 3, .mov 1)`."""
    parts = []
    for kind, words in _KINDS.items():
        total = sum(row["count"] for row in left if row["kind"] == kind)
        if total:
            named = _labels(left, kind) if kind in ("other", "folder") else ""
            parts.append(f"{total:,} {words[total != 1]}{named}")
    return parts


def advice(facts: Mapping[str, Any]) -> list[str]:
    """Say of each suffix and reason how many images are lost for it, and what to do about it.

    Files of other kinds are named where they may show something; at most `MOST_SHOWN` lines.
    """
    lines = []
    for row in facts["left"]:
        what, _, way = str(row["reason"]).partition("; ")
        if row["kind"] == "unreadable":
            way = REPAIRS.get(row["reason"], "replace or remove it")
        elif row["kind"] == "missing":
            way = "correct the list"
        elif row["kind"] != "other" or not way:
            continue
        many = "file" if row["count"] == 1 else "files"
        files = f"{many} without suffix" if row["label"] == NO_SUFFIX else f"{row['label']} {many}"
        lines.append(f"{row['count']:,} {files}: {what}; {way}")
    more = [f"{len(lines) - MOST_SHOWN} more kinds of files that are not read: see skipped.csv"]
    return lines[:MOST_SHOWN] + (more if len(lines) > MOST_SHOWN else [])


_KINDS = {
    "unreadable": ("unreadable", "unreadable"),
    "dropped": ("left out by a setting", "left out by a setting"),
    "other": ("of another kind", "of other kinds"),
    "hidden": ("hidden", "hidden"),
    "folder": ("folder not searched", "folders not searched"),
    "missing": ("name of a list without an image", "names of a list without an image"),
}


def _labels(left: Sequence[Mapping[str, Any]], kind: str) -> str:
    """Word the counts by suffix (of folders, the names) of one kind: ` (.txt 3, .mov 1)`."""
    counted: Counter[str] = Counter()
    for row in left:
        if row["kind"] == kind:
            counted[row["label"]] += row["count"]
    shown = [
        label if kind == "folder" and count == 1 else f"{label} {count:,}"
        for label, count in counted.most_common(MOST_SHOWN)
    ]
    return f" ({', '.join(shown)}{', ...' if len(counted) > MOST_SHOWN else ''})"


def _plain(text: str) -> str:
    """Escape bytes of a name that are not UTF-8, so that it can be written."""
    return text.encode(errors="backslashreplace").decode()


BLOCK = 1024
"""Images handed to the threads at a time, so that what waits stays small however many there are."""


def inspect_all(
    paths: Sequence[str], workers: int, sizes: Mapping[str, tuple[int, int]] | None = None
) -> Iterator[Inspection | BadImage]:
    """Inspect images in order; a bad one gives its error instead of raising it.

    Args:
        paths: of the images.
        workers: threads (decoding and digesting leave Python's lock alone); 0 to use only this one. At most this
            many images are in memory.
        sizes: digest -> width and height of images that need not be decoded.

    """

    def one(path: str) -> Inspection | BadImage:
        try:
            return inspect(path, sizes)
        except BadImage as error:
            return error

    if workers < 2:
        yield from map(one, paths)
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), BLOCK):
            yield from pool.map(one, paths[start : start + BLOCK])


def explain_all(leftovers: Sequence[Leftover], workers: int) -> list[Leftover]:
    """Say of files of other kinds what they are; the first bytes of some are read.

    Args:
        leftovers: what a walk took for no image.
        workers: threads that read; 0 to use only this one.

    """
    if workers < 2:
        return [explain(left) for left in leftovers]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(explain, leftovers))


def stable_order(listed: Sequence[str], known: Sequence[str]) -> list[int]:
    """Order listed images so that known ones keep their order and new ones follow.

    Args:
        listed: ids, unique.
        known: ids in the order of an earlier manifest, unique; those no longer listed are passed over.

    Returns:
        Indices into `listed`: a permutation.

    """
    index = {name: i for i, name in enumerate(listed)}
    kept = [index.pop(name) for name in known if name in index]
    return kept + list(index.values())
