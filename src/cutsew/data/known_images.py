"""What earlier runs of the manifest found of images, so that only new and edited ones are read.

`images.cache`, next to `images.parquet`, keeps size in pixels and digest of each good image with its address and a mark
of its state: a file's size, modification time and mode; of a member of a tar or a row of a Parquet file, those of the
file around it; of a URL, its size and what its file system gives as ETag or time. A running job adds a part now and
then, so that a killed one resumes; the last step replaces all parts by one file.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.config.base import is_url
from cutsew.data import remote
from cutsew.data.image_bytes import parse
from cutsew.data.images import Inspection
from cutsew.errors import UserError
from cutsew.storage.atomic import atomic_path

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same bytes give another size or digest; files of other versions are ignored."""

FACTS = ("width", "height", "bytes", "digest")
COLUMNS = ("path", "mark", *FACTS)
KINDS = dict.fromkeys(("mark", "width", "height", "bytes"), "int64")

PART_SECONDS = 30.0
"""Most seconds of work that a killed job loses, but for one block of images."""

BLOCK = 1024
UNKNOWN = 0
"""Mark of an image whose state cannot be told: it is always read."""


class KnownImages:
    """The cache of one manifest.

    Args:
        folder: `images.cache`; it need not be there. Damaged files in it are reported and ignored.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._new: list[tuple[str, int, int, int, int, str]] = []
        self._parts, self._written = 0, time.monotonic()
        tables = list(_read_all(folder))
        empty = pd.DataFrame(columns=[*COLUMNS]).astype(KINDS)
        self._table = pd.concat(tables or [empty], ignore_index=True).drop_duplicates("path", keep="last")

    @property
    def count(self) -> int:
        """How many images the cache holds."""
        return len(self._table)

    def look_up(
        self, paths: Sequence[str], marks: npt.NDArray[np.int64]
    ) -> tuple[pd.DataFrame, dict[str, tuple[int, int]]]:
        """Find the images that are as they were.

        Args:
            paths: addresses of n images, unique.
            marks: (n,) of their state now.

        Returns:
            `FACTS` of these images, by their numbers; and of all other images in the cache, which may have been touched
            or moved, digest -> width and height.

        """
        listed = pd.DataFrame({"path": paths, "mark": marks, "row": np.arange(len(paths))})
        found = listed[listed["mark"] != UNKNOWN].merge(self._table, on=["path", "mark"], how="inner")
        rest = self._table[~self._table["path"].isin(found["path"])]
        sizes = zip(rest["width"].tolist(), rest["height"].tolist(), strict=True)
        return found.set_index("row")[[*FACTS]], dict(zip(rest["digest"], sizes, strict=True))

    def add(self, path: str, mark: int, seen: Inspection) -> None:
        """Add an image that was read; all that are new are written every `PART_SECONDS`."""
        if mark != UNKNOWN:
            self._new.append((path, mark, seen.width, seen.height, seen.bytes, seen.digest))
        if self._new and time.monotonic() - self._written > PART_SECONDS:
            self._parts += 1
            self._write(f"{VERSION}-{os.getpid()}-{self._parts:06d}.parquet", pd.DataFrame(self._new, columns=COLUMNS))
            self._new, self._written = [], time.monotonic()

    def replace(self, table: pd.DataFrame) -> None:
        """Replace all that is there by `COLUMNS` of a table."""
        name = f"{VERSION}.parquet"
        if self._write(name, table.loc[table["mark"] != UNKNOWN, [*COLUMNS]]):
            for path in self._folder.iterdir():
                if path.name != name:
                    path.unlink(missing_ok=True)

    def _write(self, name: str, table: pd.DataFrame) -> bool:
        try:
            with atomic_path(self._folder / name) as draft:
                table.to_parquet(draft, index=False, compression="zstd", write_page_checksum=True)
        except (OSError, UserError) as error:
            log.warning("%s; the next run will read these images again", error)
            return False
        return True


def _read_all(folder: Path) -> Iterator[pd.DataFrame]:
    from pyarrow.parquet import read_table  # noqa: PLC0415  # slow to import

    for path in sorted(folder.glob(f"{VERSION}*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        try:
            table = read_table(path, columns=[*COLUMNS], page_checksum_verification=True).to_pandas()
            yield table.astype(KINDS)
        except Exception as error:  # noqa: BLE001 - damage shows in many ways, and reading the images fixes them all
            log.warning("%s: not readable (%s); its images are read again", path, type(error).__name__)


def marks_of(paths: Sequence[str], root: Path | str | None, workers: int) -> npt.NDArray[np.int64]:
    """Mark the state of images: (n,), `UNKNOWN` of those that are gone or behind a URL without ETag or time.

    Args:
        paths: their addresses.
        root: the folder or URL in which they were listed.
        workers: threads that ask for them.

    """
    at_url = remote.find_files(root) if isinstance(root, str) and any(map(is_url, paths)) else {}
    containers: dict[str, int] = {}

    def mark(address: str) -> int:
        place = parse(address)
        if not isinstance(place, str):
            container = place.container
            if container not in containers:
                containers[container] = _mark_of_url(container) if is_url(container) else _mark_of_file(container)
            return containers[container]
        return _mark_of_url(place, at_url) if is_url(place) else _mark_of_file(place)

    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        marked = list(pool.map(lambda block: np.array([*map(mark, block)], dtype=np.int64), blocks))
    return np.concatenate(marked) if marked else np.empty(0, dtype=np.int64)


def _mark_of_file(path: str) -> int:
    try:
        status = os.stat(path)  # noqa: PTH116  # 100,000 times: no Path objects
    except OSError:
        return UNKNOWN
    return _hash(f"{status.st_size}\t{status.st_mtime_ns}\t{status.st_mode}")


def _mark_of_url(url: str, listed: Mapping[str, dict[str, object]] | None = None) -> int:
    _, _, state = remote.stat_line(url, None if listed is None else listed.get(url, {})).partition("\t")
    return UNKNOWN if state.endswith(("\t", "missing")) else _hash(state)


def _hash(state: str) -> int:
    return int.from_bytes(hashlib.blake2b(state.encode(), digest_size=8).digest(), signed=True) or 1
