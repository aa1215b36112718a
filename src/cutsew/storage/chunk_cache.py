"""Chunk files by the content of their images, so that a shard whose images change recomputes only the new ones.

Next to `views.zarr` lies `views.cache/<signature>/<shard>-<digest>/`: hard links to the chunk files of one job, which
take no space, and `entry.json` with the digests of their images, row by row. The signature covers all that the values
depend on besides the images, so that no other settings, weights or versions reuse them. Entries whose chunk files are
no longer those of the Zarr are pruned when it is sealed.

The first job after a change of the manifest reads all entries and writes an index of their images; the others look
their images up in it. So jobs read entries in proportion to their images, not to all shards.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.errors import UserError, first_line
from cutsew.storage.atomic import atomic_path
from cutsew.storage.zarr_layout import Array, ArraySpec, folder_of

log = logging.getLogger(__name__)

ENTRY = "entry.json"
IMAGE = "image"
"""The dimension along which values of images are looked up."""


def cache_folder(group: Path) -> Path:
    """Return the folder of the cache next to a Zarr group, given as its folder or the `zarr.json` in it."""
    return folder_of(group).with_suffix(".cache")


class ChunkCache:
    """The chunk files of jobs that compute the same arrays of different images.

    Args:
        group: the Zarr group whose chunk files the jobs write.
        depends_on: all that the values depend on besides the images, plain JSON.
        manifest: `images.parquet`; entries that were added since it was written are not looked at.

    """

    def __init__(self, group: Path, depends_on: Mapping[str, Any], manifest: Path) -> None:
        content = json.dumps(depends_on, sort_keys=True, default=str)
        self._folder = cache_folder(group) / hashlib.sha256(content.encode()).hexdigest()[:16]
        status = manifest.stat()
        self._index_file = self._folder / f"{status.st_mtime_ns}-{status.st_size}.npy"

    def complete(
        self, digests: Sequence[str], specs: Mapping[str, ArraySpec], compute: Callable[[list[int]], dict[str, Array]]
    ) -> tuple[dict[str, Array], int]:
        """Return the values of images: those in the cache, and those of new images, computed once for equal ones.

        Args:
            digests: of the n images.
            specs: the arrays, by name; their shapes are those of all n images.
            compute: from the numbers of some images to their values, by name of the array.

        Returns:
            The values of all images by name of the array, and how many images were computed.

        """
        rows_of: dict[str, list[int]] = {}
        for row, digest in enumerate(digests):
            rows_of.setdefault(digest, []).append(row)
        values = self._find(rows_of, specs)
        new = [rows[0] for rows in rows_of.values()]
        if not new:
            return values, 0
        computed = compute(new)
        if len(new) == len(digests):
            return computed, len(new)
        sources = [source for source, rows in enumerate(rows_of.values()) for _ in rows]
        targets = [row for rows in rows_of.values() for row in rows]
        for name, spec in specs.items():
            values[name][_at(spec, targets)] = computed[name][_at(spec, sources)]
        return values, len(new)

    def _find(self, rows_of: dict[str, list[int]], specs: Mapping[str, ArraySpec]) -> dict[str, Array]:
        """Fill in what entries hold, and take these images out of `rows_of`; unreadable entries are ignored."""
        values = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
        for path in self._entries_of(list(rows_of)):
            if not rows_of:
                break
            try:
                entry = _read_entry(path)
                images = entry["images"]
                found = [row for row, digest in enumerate(images) if digest in rows_of]
                if not found:
                    continue
                if not path.parent.name.endswith(_digest(images)):
                    raise ValueError("other images than were written")
                sources = [row for row in found for _ in rows_of[images[row]]]
                targets = [target for row in found for target in rows_of[images[row]]]
                for name, spec in specs.items():
                    chunk = _read(path.parent / name, spec, entry["arrays"][name])
                    values[name][_at(spec, targets)] = chunk[_at(spec, sources)]
            except Exception as error:  # noqa: BLE001 - damage shows in many ways, and recomputing fixes them all
                _warn(path, error)
                continue
            for row in found:
                rows_of.pop(images[row], None)
        return values

    def _entries_of(self, digests: Sequence[str]) -> list[Path]:
        """List the entries that hold any of these images."""
        index, wanted = self._index(), _keys(digests)
        first, last = (np.searchsorted(index[0], wanted, side) for side in ("left", "right"))
        places = [place for pair in zip(first, last, strict=True) for place in range(*pair)]
        names = {f"{shard}-{content:016x}" for shard, content in index[1:, places].T.tolist()}
        return [self._folder / name / ENTRY for name in sorted(names)]

    def _index(self) -> npt.NDArray[np.uint64]:
        """Return (3, n): of each image in an entry its key, ascending, and the two numbers of the entry's name."""
        try:
            stored: npt.NDArray[np.uint64] = np.load(self._index_file, mmap_mode="r")
            return stored
        except (OSError, ValueError, EOFError):
            pass  # of another manifest, or damaged
        parts = [np.empty((3, 0), dtype=np.uint64)]
        for path in sorted(self._folder.glob(f"*/{ENTRY}")):
            try:
                keys = _keys(_read_entry(path)["images"])
                shard, content = path.parent.name.split("-")
                name = np.array([[int(shard)], [int(content, 16)]], dtype=np.uint64)
                parts.append(np.vstack([keys, np.broadcast_to(name, (2, len(keys)))]))
            except Exception as error:  # noqa: BLE001 - as in _find
                _warn(path, error)
        index = np.concatenate(parts, axis=1)
        index = index[:, np.argsort(index[0], kind="stable")]
        try:
            with atomic_path(self._index_file) as draft, draft.open("wb") as file:
                np.save(file, index)
        except (OSError, UserError) as error:
            log.info("%s: not written (%s); every job will read all entries", self._index_file, first_line(error))
        return index

    def add(
        self,
        shard: int,
        digests: Sequence[str],
        specs: Mapping[str, ArraySpec],
        files: Mapping[str, tuple[Path, str]],
    ) -> None:
        """Link the chunk files of one job; on a disk that refuses it, nothing is kept.

        Args:
            shard: which shard of the images they hold.
            digests: of its images, in the order of the rows.
            specs: the arrays, by name.
            files: each array's chunk file and the SHA-256 of its bytes.

        """
        arrays = {
            name: {"chunks": specs[name].chunks, "inner": specs[name].inner, "sha256": digest}
            for name, (_, digest) in files.items()
        }
        try:
            with atomic_path(self._folder / f"{shard}-{_digest(digests)}") as draft:
                draft.mkdir()
                for name, (path, _) in files.items():
                    os.link(path, draft / name)
                draft.joinpath(ENTRY).write_text(json.dumps({"images": [*digests], "arrays": arrays}), encoding="utf-8")
        except (OSError, UserError) as error:
            log.info("%s: not written (%s); new images will rerun whole shards", self._folder, first_line(error))


def prune(group: Path) -> None:
    """Delete the indexes of a group's cache, and the entries whose chunk files are not the group's any more.

    Args:
        group: its folder or the `zarr.json` in it.

    """
    folder = cache_folder(group)
    if not folder.is_dir():
        return
    current = {_identity(path) for path in folder_of(group).glob("*/c/**/*") if path.is_file()}
    for signature in filter(Path.is_dir, folder.iterdir()):
        for entry in signature.iterdir():
            if entry.is_file():  # an index, which only the jobs before the seal read
                entry.unlink()
            elif not any(_identity(path) in current for path in _files(entry)):
                shutil.rmtree(entry, ignore_errors=True)
        if not any(signature.iterdir()):
            signature.rmdir()


def _files(entry: Path) -> Iterator[Path]:
    if entry.is_dir():
        yield from (path for path in entry.iterdir() if path.name != ENTRY)


def _read_entry(path: Path) -> Any:  # noqa: ANN401 - damaged ones may hold anything
    return json.loads(path.read_text(encoding="utf-8"))


def _keys(digests: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the first 64 bits of SHA-256 digests."""
    return np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)


def _warn(path: Path, error: Exception) -> None:
    log.warning("%s: not readable (%s); its images are recomputed", path.parent, first_line(error))


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _read(path: Path, spec: ArraySpec, stored: Mapping[str, Any]) -> Array:
    """Read a chunk file as its entry describes it.

    Raises:
        ValueError: its bytes are not those that were written.

    """
    from cutsew.storage.zarr_chunks import chunk_values

    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != stored["sha256"]:
        raise ValueError("other bytes than were written")
    inner = None if stored["inner"] is None else tuple(stored["inner"])
    return chunk_values(data, replace(spec, chunks=tuple(stored["chunks"]), inner=inner))


def _at(spec: ArraySpec, rows: list[int]) -> tuple[Any, ...]:
    """Index images by their rows, and cut what pads a chunk along the other dimensions."""
    return tuple(rows if name == IMAGE else slice(n) for name, n in zip(spec.dims, spec.shape, strict=True))


def _digest(images: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(images).encode()).hexdigest()[:16]
