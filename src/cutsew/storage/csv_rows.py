"""CSV files whose text is other people's: names of images and classes may hold any character."""

import csv
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cutsew.storage.atomic import atomic_path

if TYPE_CHECKING:
    import pandas as pd

QUOTING_TERMINATOR = "\r\n"
"""The line end with which `csv` and pandas quote fields that hold a CR; with LF alone they leave them bare."""


class _UnixLines:
    """Takes rows that end by CR and LF, and writes LF."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, row: str) -> int:
        return self._stream.write(row.removesuffix(QUOTING_TERMINATOR) + "\n")


def csv_writer(stream: IO[str]) -> Any:  # noqa: ANN401 - the csv module's writer has no public type
    """Return a `csv.writer` whose lines end by LF, and whose fields may hold CR, LF, quotes and commas.

    Args:
        stream: opened with `newline=""`.

    """
    return csv.writer(_UnixLines(stream), lineterminator=QUOTING_TERMINATOR)


def write_csv(path: Path, table: "pd.DataFrame", float_format: str | None = None) -> None:
    """Write a table without its index atomically, as UTF-8, with lines and fields as of `csv_writer`."""
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
        lines: Any = _UnixLines(stream)
        table.to_csv(lines, index=False, float_format=float_format, lineterminator=QUOTING_TERMINATOR)
