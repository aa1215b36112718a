"""Zarr v3 groups with named dimensions and coordinates, written whole or chunk by chunk, and opened only if complete.

Two ways of writing:

- `write_group`: one job writes a whole group (fused.zarr and the like).
- `write_chunk` by many jobs, one chunk file each, then `seal` by one job, which writes the metadata last.
  So an array that opens is complete.

Chunks whose values all equal the fill value are written too; a missing chunk file therefore always means loss.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.storage import LocalStore, MemoryStore

from cutsew.artefacts.atomic import replacing
from cutsew.errors import UserError

Array = npt.NDArray[Any]
INNER_IMAGES = 128
"""Images in an inner chunk of a sharded array: few enough that an auditor's read of one image is quick."""


@dataclass(frozen=True)
class Spec:
    """Shape, dtype and layout of one array of a group.

    Attributes:
        shape: of the whole array.
        dtype: numpy name, such as "float32".
        dims: a name for each dimension.
        chunks: shape of a chunk file; cut at nothing, so it may exceed `shape`.
        inner: shape of the inner chunks of a chunk file (Zarr's sharding), None for one block.
        attributes: plain JSON values kept with the array.

    """

    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    chunks: tuple[int, ...]
    inner: tuple[int, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def create(self, store: Any, name: str, shape: tuple[int, ...] | None = None) -> zarr.Array[Any]:
        """Create the array's metadata in a store."""
        return zarr.create_array(
            store,
            name=name,
            shape=self.shape if shape is None else shape,
            dtype=self.dtype,
            chunks=self.inner or self.chunks,
            shards=self.chunks if self.inner else None,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle),
            dimension_names=self.dims,
            attributes=dict(self.attributes),
            config={"write_empty_chunks": True},
        )

    def keys(self) -> Iterator[str]:
        """Name all chunk files, relative to the array's folder."""
        grid = (range(math.ceil(n / c)) for n, c in zip(self.shape, self.chunks, strict=True))
        for index in itertools.product(*grid):
            yield "/".join(("c", *map(str, index)))


def inner_chunk(images_per_chunk: int) -> int:
    """Images per inner chunk: INNER_IMAGES where it divides the chunk, else the whole chunk."""
    return INNER_IMAGES if images_per_chunk % INNER_IMAGES == 0 else images_per_chunk


def write_chunk(path: Path, values: Array, spec: Spec) -> str:
    """Write one chunk file of an array whose metadata may not exist yet; return the file's digest.

    Args:
        path: the chunk file, `<array>/c/<i>/<j>/...`.
        values: shape at most `spec.chunks`; the rest of the chunk is padded with zeros.
        spec: of the array.

    """
    memory = MemoryStore()
    array = spec.create(memory, "chunk", shape=spec.chunks)
    padded = np.zeros(spec.chunks, dtype=spec.dtype)
    padded[tuple(slice(0, n) for n in values.shape)] = values
    array[...] = padded
    key = next(key for key in memory._store_dict if key.startswith("chunk/c/"))  # noqa: SLF001
    data = memory._store_dict[key].to_bytes()  # noqa: SLF001
    with replacing(path) as draft:
        draft.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def seal(
    path: Path, specs: Mapping[str, Spec], coordinates: Mapping[str, Sequence[Any] | Array], attributes: dict[str, Any]
) -> str:
    """Write the metadata of a group whose chunk files are all there; return the digest of its content.

    The group's own `zarr.json` is written last and holds the digest, so that it changes whenever the content does.

    Raises:
        UserError: a chunk file is missing.

    """
    store = LocalStore(path)
    path.joinpath("zarr.json").unlink(missing_ok=True)
    for name, spec in specs.items():
        _refuse_missing(path / name, spec)
        path.joinpath(name, "zarr.json").unlink(missing_ok=True)
        spec.create(store, name)
    for name, values in coordinates.items():
        _write_coordinate(store, name, values)
    digest = content_digest(path)
    group = zarr.create_group(store=MemoryStore(), attributes={**attributes, "digest": digest})
    with replacing(path / "zarr.json") as draft:
        draft.write_bytes(group.store._store_dict["zarr.json"].to_bytes())  # type: ignore[attr-defined]  # noqa: SLF001
    return digest


def write_group(
    path: Path,
    arrays: Mapping[str, tuple[Spec, Iterator[Array] | Array]],
    coordinates: Mapping[str, Sequence[Any] | Array],
    attributes: dict[str, Any],
) -> str:
    """Write a whole group atomically; return the digest of its content.

    Args:
        path: the group's folder, `<name>.zarr`.
        arrays: name -> (spec, values); values are the whole array or an iterator over slices along the FIRST
            dimension, in order, so that memory stays bounded.
        coordinates: name of a dimension -> its labels.
        attributes: plain JSON values kept with the group.

    """
    with replacing(path) as draft:
        store = LocalStore(draft)
        for name, (spec, values) in arrays.items():
            array = spec.create(store, name)
            if isinstance(values, np.ndarray):
                array[...] = values
                continue
            start = 0
            for block in values:
                array[start : start + len(block)] = block
                start += len(block)
        digest = seal(draft, {name: spec for name, (spec, _) in arrays.items()}, coordinates, attributes)
    return digest


def open_group(path: Path) -> zarr.Group:
    """Open a group for reading, refusing it where it or one of its chunk files is missing.

    Args:
        path: the group's folder or the `zarr.json` in it.

    Raises:
        UserError: not a sealed group, or a chunk is lost.

    """
    folder = folder_of(path)
    if not folder.joinpath("zarr.json").is_file():
        raise UserError(f"{folder}: not a finished Zarr; run the workflow again to make it")
    group = zarr.open_group(LocalStore(folder, read_only=True), mode="r")
    for name, array in group.arrays():
        _refuse_missing(folder / name, _spec_of(array))
    return group


def folder_of(path: Path) -> Path:
    """Return the folder of a group given as that folder or as the `zarr.json` in it."""
    return path.parent if path.name == "zarr.json" else path


def labels_of(group: zarr.Group, dimension: str) -> list[str]:
    """Read a coordinate of text labels, such as `image` or `class`."""
    return [str(label) for label in group[dimension][...]]  # type: ignore[union-attr,index]


def content_digest(path: Path) -> str:
    """Digest all files of a group but its own metadata file: names and bytes, in sorted order."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p != path / "zarr.json"):
        if any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _write_coordinate(store: LocalStore, name: str, values: Sequence[Any] | Array) -> None:
    labels = np.asarray(values)
    text = labels.dtype.kind in "UO"
    zarr.create_array(
        store,
        name=name,
        shape=labels.shape,
        dtype="string" if text else labels.dtype.name,
        chunks=(max(1, min(len(labels), 65536)),),
        dimension_names=(name,),
        overwrite=True,
        config={"write_empty_chunks": True},
    )[...] = labels.astype(object) if text else labels


def _spec_of(array: zarr.Array[Any]) -> Spec:
    return Spec(array.shape, str(array.dtype), (), array.shards or array.chunks)


def _refuse_missing(folder: Path, spec: Spec) -> None:
    for key in spec.keys():
        if not folder.joinpath(key).is_file():
            raise UserError(f"{folder / key}: this chunk is missing; run the workflow again to make it")
