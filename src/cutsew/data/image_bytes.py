"""Where the bytes of an image are, and reading them.

The manifest's column `path` holds an address of one of four forms, which `read_bytes` understands:

- a path, or the URL of a file;
- `tar://<member>@<offset>+<length>::<tar>`: bytes of a tar, whose header stands before them;
- `parquet://<column>@<row>::<file>`: a row of a Parquet file.

The tar and the Parquet file are paths or URLs themselves.
"""

import bisect
import itertools
import os
import re
import stat
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cutsew.config.base import is_url
from cutsew.data import remote

TAR = re.compile(r"tar://(.*)@(\d+)\+(\d+)::(.*)", re.DOTALL)
PARQUET = re.compile(r"parquet://(.*)@(\d+)::(.*)", re.DOTALL)

ROWS_TOGETHER = 64
"""Rows of a Parquet file that are decoded together."""


MAX_BYTES = 2**30 + 2**24
"""Larger files are not read: 179 million pixels, the most that are decoded, of 16 bits in three channels."""

NO_FILE = "no such file"
NO_MEMBER = "no such member: the tar was changed after it was listed"
NO_ROW = "no such row: the file was changed after it was listed"
"""Reasons why bytes cannot be read."""


class UnreadableBytes(Exception):  # noqa: N818  # named for what it is about
    """The bytes of an image cannot be read; the message is the reason in a few words."""


@dataclass(frozen=True)
class TarMember:
    """A member of a tar.

    Attributes:
        container: path or URL of the tar.
        name: of the member.
        offset: of its first byte.
        length: in bytes.

    """

    container: str
    name: str
    offset: int
    length: int

    def __str__(self) -> str:
        """Return the address."""
        return f"tar://{self.name}@{self.offset}+{self.length}::{self.container}"


@dataclass(frozen=True)
class ParquetRow:
    """A row of a Parquet file.

    Attributes:
        container: path or URL of the file.
        column: with the bytes of images; `<column>.bytes` where it is a struct.
        row: its number in the file.

    """

    container: str
    column: str
    row: int

    def __str__(self) -> str:
        """Return the address."""
        return f"parquet://{self.column}@{self.row}::{self.container}"


def parse(address: str) -> TarMember | ParquetRow | str:
    """Return what an address stands for; a path or the URL of a file as it is."""
    if match := TAR.fullmatch(address):
        return TarMember(match[4], match[1], int(match[2]), int(match[3]))
    if match := PARQUET.fullmatch(address):
        return ParquetRow(match[3], match[1], int(match[2]))
    return address


def describe(address: str) -> str:
    """Word an address for messages and tables."""
    place = parse(address)
    if isinstance(place, TarMember):
        return f"{place.container}: {place.name}"
    if isinstance(place, ParquetRow):
        return f"row {place.row} of {place.container}"
    return place


def is_local_file(address: str) -> bool:
    """Check whether an image is a file of its own on this machine."""
    place = parse(address)
    return isinstance(place, str) and not is_url(place)


def read_bytes(address: str) -> bytes:
    """Read the bytes of an image.

    Raises:
        UnreadableBytes: there are none: no such file, member or row, or the file around it is damaged.
        UserError: a URL cannot be reached.

    """
    place = parse(address)
    try:
        if isinstance(place, TarMember):
            data = _of_tar(place)
        elif isinstance(place, ParquetRow):
            data = _of_parquet(place)
        else:
            data = remote.read_file(place) if is_url(place) else _of_file(Path(place))
    except FileNotFoundError:
        raise UnreadableBytes("broken link" if os.path.islink(address) else NO_FILE) from None  # noqa: PTH114
    except OSError as error:
        raise UnreadableBytes(f"unreadable: {(error.strerror or type(error).__name__).lower()}") from None
    if not data:
        raise UnreadableBytes("empty file")
    return data


def open_container(container: str, *, ahead: bool) -> IO[bytes]:
    """Open a tar, which is read ahead, or a Parquet file, whose reader knows which parts it needs.

    Raises:
        OSError: a local one cannot be opened.
        UserError: a URL cannot be reached.

    """
    return remote.open_file(container, ahead=ahead) if is_url(container) else Path(container).open("rb")


def _of_file(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe of that name would be waited for without end
        raise UnreadableBytes("not a file")
    _refuse_larger(status.st_size)
    return path.read_bytes()


def _refuse_larger(size: int) -> None:
    """Refuse what memory might not hold, and what no image is."""
    if size > MAX_BYTES:
        raise UnreadableBytes(f"too large: {size / 2**30:.1f} GiB")


def _of_tar(member: TarMember) -> bytes:
    """Read a member together with the header before it, which shows whether the tar is still the one listed."""
    _refuse_larger(member.length)
    start, length = member.offset - tarfile.BLOCKSIZE, member.length + tarfile.BLOCKSIZE
    if is_url(member.container):
        data = remote.read_range(member.container, start, length)
    else:
        with open(member.container, "rb", buffering=0) as file:  # noqa: PTH123  # for each image
            there = os.fstat(file.fileno()).st_size - start  # a damaged header may claim terabytes
            data = os.pread(file.fileno(), max(0, min(length, there)), start)
    try:
        header = tarfile.TarInfo.frombuf(data[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.TarError:
        raise UnreadableBytes(NO_MEMBER) from None
    # A header before this one holds names that are long or not ASCII.
    long = not member.name.isascii() or len(member.name) > tarfile.LENGTH_NAME
    named = long or header.name == member.name
    if header.size != member.length or not named:
        raise UnreadableBytes(NO_MEMBER)
    if len(data) < length:
        raise UnreadableBytes("truncated")
    return data[tarfile.BLOCKSIZE :]


class _Rows:
    """Reads rows of one column; in order, each is decoded once."""

    def __init__(self, container: str, column: str) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415  # only images in Parquet files need it

        self._column = column
        self._file = pq.ParquetFile(open_container(container, ahead=False))
        meta = self._file.metadata
        counts = (meta.row_group(group).num_rows for group in range(meta.num_row_groups))
        self._starts = list(itertools.accumulate(counts, initial=0))
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._first = 0
        self._values: list[Any] = []

    def read(self, row: int) -> bytes | None:
        if row >= self._starts[-1]:
            raise UnreadableBytes(NO_ROW)
        group = bisect.bisect_right(self._starts, row) - 1
        if group != self._group or row < self._first:
            self._group, self._first, self._values = group, self._starts[group], []
            self._batches = self._file.iter_batches(ROWS_TOGETHER, row_groups=[group], columns=[self._column])
        while row >= self._first + len(self._values):
            self._first += len(self._values)
            self._values = next(self._batches).column(0).to_pylist()
        value = self._values[row - self._first]
        return value.get("bytes") if isinstance(value, dict) else value


class _Readers(threading.local):
    """The reader that a thread used last, and what of; a forked process opens its own."""

    key: tuple[Any, ...] = ()
    rows: _Rows | None = None


_readers = _Readers()


def _of_parquet(place: ParquetRow) -> bytes:
    if is_url(place.container):
        data = remote.attempt(place.container, lambda: _read_row(place), doubtful=(UnreadableBytes,))
    else:
        data = _read_row(place)
    if data is None:
        raise UnreadableBytes("no image in this row")
    return data


def _read_row(place: ParquetRow) -> bytes | None:
    from pyarrow import ArrowException  # noqa: PLC0415  # as above

    key = (os.getpid(), place.container, place.column)
    if _readers.key != key:
        _readers.key, _readers.rows = (), None
    try:
        rows = _readers.rows or _Rows(place.container, place.column)
        data = rows.read(place.row)
    except (ArrowException, StopIteration, OSError) as error:
        _readers.key, _readers.rows = (), None
        # A damaged file is pyarrow's error, or an OSError without number; those of a URL may be the connection's.
        if isinstance(error, OSError) and (error.errno is not None or is_url(place.container)):
            raise
        raise UnreadableBytes("damaged Parquet file") from None
    _readers.key, _readers.rows = key, rows
    return data
