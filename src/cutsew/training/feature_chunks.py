"""Chunk files of cached features: each is replaced atomically and has a checksum, so that jobs share them unlocked."""

import json
import logging
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.storage.zarr_chunks import array_metadata, chunk_bytes, chunk_values
from cutsew.storage.zarr_layout import ArraySpec

log = logging.getLogger(__name__)

Place = tuple[int, ...]
Values = npt.NDArray[np.float32]
WHOLE = ("0", "0", "0")
"""The chunk along the last axes."""
STALE_SECONDS = 3600
"""Age in seconds from which a draft is one that a killed process left."""


class Chunks:
    """The chunk files of an array that is cut along its first axes and whole along the last three.

    Args:
        folder: the array's.
        spec: its layout.

    """

    def __init__(self, folder: Path, spec: ArraySpec) -> None:
        self._folder, self._spec = folder, spec
        axes = len(spec.shape) - len(WHOLE)
        files = folder.glob("/".join(["c", *"*" * axes, *WHOLE]))
        result = (path.relative_to(folder).parts[1 : 1 + axes] for path in files)
        self._there = {tuple(map(int, parts)) for parts in result if all(part.isdigit() for part in parts)}

    def __contains__(self, place: Place) -> bool:
        """Say whether a chunk was there when the array was opened, or was written since."""
        return place in self._there

    def read(self, place: Place) -> Values | None:
        """Read a chunk, `spec.chunks`; None where it is gone, or damaged and therefore removed."""
        path = self._path(place)
        try:
            return chunk_values(path.read_bytes(), self._spec)
        except FileNotFoundError:
            self._there.discard(place)
        except Exception as error:  # noqa: BLE001 - a damaged chunk fails in many ways, and recomputing fixes them all
            log.warning("%s: unreadable (%s); its features are recomputed", path, type(error).__name__)
            self._there.discard(place)
            _remove(path)
        return None

    def write(self, place: Place, values: Values) -> None:
        """Write a chunk, at most `spec.chunks`; one that another job has already written stays.

        Raises:
            OSError: the disk is full or cannot be written.

        """
        path = self._path(place)
        if not path.is_file():
            write_whole(path, chunk_bytes(values, self._spec))
        self._there.add(place)

    def describe(self) -> None:
        """Write the array's metadata; of two jobs with other numbers of epochs the greater one's stays."""
        path = self._folder / "zarr.json"
        if _length(path) < self._spec.shape[0]:
            write_whole(path, array_metadata(self._spec))

    def _path(self, place: Place) -> Path:
        return self._folder.joinpath("c", *map(str, place), *WHOLE)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, whoever else writes it at the same time.

    Raises:
        OSError: the disk is full or cannot be written.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.draft")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        _remove(draft)


def remove_stale_tmp(folder: Path) -> None:
    """Remove what killed processes left of their drafts, but none that another job may be writing."""
    for draft in folder.rglob(".*.draft"):
        try:
            if time.time() - draft.stat().st_mtime > STALE_SECONDS:
                draft.unlink()
        except FileNotFoundError:
            continue


def _length(metadata: Path) -> int:
    """Read the first axis's length from an array's metadata; 0 where there is none."""
    try:
        content: dict[str, Any] = json.loads(metadata.read_bytes())
        return int(content["shape"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return 0


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
