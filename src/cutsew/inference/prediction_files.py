"""Predictions in files, written as they come: CSV, wide or long, and JSON, as one array or one line per image."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from cutsew.errors import UserError, blocked
from cutsew.storage.atomic import atomic_path
from cutsew.storage.csv_rows import csv_writer

FORMATS = ("csv", "json", "jsonl")
SEPARATOR = ";"
"""Between the labels of a CSV's field, as in a CSV of true labels."""

Writer = Callable[[str, npt.NDArray[np.float64], npt.NDArray[np.bool_]], None]
"""Writes an image's name, its (C,) probabilities and which classes are named."""


def format_of(out: Path, requested: str | None, classes: Sequence[str], *, long: bool) -> str:
    """Return the format of a file, from its suffix if none is requested; CSV on standard output.

    Raises:
        UserError: no known format, or one that these classes cannot be written in; or no file can be written there.

    """
    chosen = requested or ("csv" if str(out) == "-" else out.suffix.removeprefix(".").lower())
    if chosen not in FORMATS:
        raise UserError(f"{out}: not a .csv, .json or .jsonl file; name one, or - for standard output")
    if str(out) != "-" and (line := blocked(out, folder=False)):
        raise UserError(line)
    if long and chosen != "csv":
        raise UserError(f"--long: applies only to CSV, not to {chosen}; leave it out")
    if chosen == "csv" and not long:
        for name in classes:
            if name in ("image", "labels") or SEPARATOR in name:
                raise UserError(f"{out}: the class {name!r} is not allowed in this table; write .jsonl, or add --long")
    return chosen


@contextmanager
def open_prediction_writer(out: Path, chosen: str, classes: Sequence[str], *, long: bool) -> Iterator[Writer]:
    """Give a writer of rows; the file takes its place when all are written, and not before.

    Args:
        out: the file, or `-` for standard output, where a reader that stops early ends the program quietly.
        chosen: one of FORMATS.
        classes: C names.
        long: of CSV, a row per image and class.

    """
    if str(out) != "-":
        with atomic_path(out) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
            yield from _rows(stream, chosen, classes, long=long)
        return
    try:
        yield from _rows(sys.stdout, chosen, classes, long=long)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        raise SystemExit(1) from None


def _rows(stream: IO[str], chosen: str, classes: Sequence[str], *, long: bool) -> Iterator[Writer]:
    if chosen == "csv":
        yield (_long if long else _wide)(stream, classes)
        return
    lines = _Json(stream, classes, array=chosen == "json")
    yield lines.write
    lines.end()


def _wide(stream: IO[str], classes: Sequence[str]) -> Writer:
    rows = csv_writer(stream)
    rows.writerow(["image", "labels", *classes])

    def write(name: str, probabilities: npt.NDArray[np.float64], named: npt.NDArray[np.bool_]) -> None:
        labels = SEPARATOR.join(np.array(classes, dtype=object)[named])
        rows.writerow([name, labels, *(f"{p:.6g}" for p in probabilities)])

    return write


def _long(stream: IO[str], classes: Sequence[str]) -> Writer:
    rows = csv_writer(stream)
    rows.writerow(["image", "class", "probability", "named"])

    def write(name: str, probabilities: npt.NDArray[np.float64], named: npt.NDArray[np.bool_]) -> None:
        for label, p, yes in zip(classes, probabilities, named, strict=True):
            rows.writerow([name, label, f"{p:.6g}", int(yes)])

    return write


class _Json:
    """One line per image; as an array, with brackets and commas around."""

    def __init__(self, stream: IO[str], classes: Sequence[str], *, array: bool) -> None:
        self._stream = stream
        self._classes = classes
        self._array = array
        self._written = 0

    def write(self, name: str, probabilities: npt.NDArray[np.float64], named: npt.NDArray[np.bool_]) -> None:
        row = {
            "image": name,
            "labels": [label for label, yes in zip(self._classes, named, strict=True) if yes],
            "probabilities": {c: float(f"{p:.6g}") for c, p in zip(self._classes, probabilities, strict=True)},
        }
        before = ("[\n" if not self._written else ",\n") if self._array else ""
        self._stream.write(before + json.dumps(row, ensure_ascii=False) + ("" if self._array else "\n"))
        self._written += 1

    def end(self) -> None:
        if self._array:
            self._stream.write("\n]\n" if self._written else "[]\n")
