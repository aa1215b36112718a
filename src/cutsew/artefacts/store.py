"""Zarr v3 groups with named dimensions and coordinates, written whole or chunk by chunk, and opened only if complete.

Two ways of writing:

- `new_group`: one job writes a whole group (fused.zarr and the like).
- `write_chunk` by many jobs, one chunk file each, then `seal` by one job, which writes the metadata last.
  So an array that opens is complete.

Chunks whose values all equal the fill value are written too; a missing chunk file therefore always means loss.
Each chunk ends in a checksum (CRC-32C) that every reader checks, so that a flipped byte is no value.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cutsew.artefacts.atomic import replacing, telling
from cutsew.artefacts.coordinates import Coordinates, write_coordinate
from cutsew.errors import UserError

if TYPE_CHECKING:  # zarr takes longer to import than all else of a light stage: it is, when the first array is touched
    import zarr
    from zarr.storage import LocalStore, MemoryStore

Array = npt.NDArray[Any]
AGAIN = "delete it and run the workflow again"
DAMAGE = (ValueError, TypeError, KeyError, RuntimeError, OSError, AttributeError, BufferError)
"""What zarr and its codecs raise at metadata and chunks that are not what they were."""

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
        quick: chunks are packed for speed rather than size.

    """

    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    chunks: tuple[int, ...]
    inner: tuple[int, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False

    def create(
        self, store: "LocalStore | MemoryStore", name: str, shape: tuple[int, ...] | None = None
    ) -> "zarr.Array[Any]":
        """Create the array's metadata in a store."""
        import zarr
        from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

        packed = BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle)
        if self.quick:
            packed = BloscCodec(cname="zstd", clevel=1, shuffle=BloscShuffle.bitshuffle)
        return zarr.create_array(
            store,
            name=name,
            shape=self.shape if shape is None else shape,
            dtype=self.dtype,
            chunks=self.inner or self.chunks,
            shards=self.chunks if self.inner else None,
            compressors=(packed, Crc32cCodec()),
            dimension_names=self.dims,
            attributes=dict(self.attributes),
            config={"write_empty_chunks": True},
        )

    def chunk_keys(self) -> Iterator[str]:
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
    from cutsew.artefacts.chunk import chunk_bytes

    data = chunk_bytes(values, spec)
    with replacing(path) as draft:
        draft.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def seal(
    path: Path,
    specs: Mapping[str, Spec],
    coordinates: Coordinates,
    attributes: Mapping[str, Any],
    known: Mapping[str, str] | None = None,
) -> str:
    """Write the metadata of a group whose chunk files are all there; return the digest of its content.

    The group's own `zarr.json` is written last and holds the digest, so that it changes whenever the content does.

    Args:
        path: the group's folder.
        specs: its arrays, by name.
        coordinates: name of a dimension -> its labels; or any name -> labels along another dimension.
        attributes: plain JSON values kept with the group.
        known: digests of chunk files, by path relative to `path`, where their writers told them; others are read.

    Raises:
        UserError: a chunk file is missing.

    """
    from zarr.storage import LocalStore

    from cutsew.artefacts.chunk import group_metadata

    store = LocalStore(path)
    try:
        with telling(path, path):
            path.joinpath("zarr.json").unlink(missing_ok=True)
            for name, spec in specs.items():
                _refuse_missing(path / name, spec)
                for left in path.joinpath(name).glob("zarr*"):  # of an earlier seal, or of one that was killed
                    left.unlink()
                spec.create(store, name)
            for name, labels in coordinates.items():
                write_coordinate(store, name, labels)
            digest = content_digest(path, known)
    except BaseException:
        path.joinpath("zarr.json").unlink(missing_ok=True)  # zarr writes one with the first array
        raise
    with replacing(path / "zarr.json") as draft:
        draft.write_bytes(group_metadata({**attributes, "digest": digest}))
    return digest


@contextmanager
def new_group(
    path: Path,
    specs: Mapping[str, Spec],
    coordinates: Coordinates,
    attributes: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, "zarr.Array[Any]"]]:
    """Write a whole group by one job, atomically: fill the arrays that this gives; they are sealed at the end.

    Args:
        path: the group's folder, `<name>.zarr`, or the `zarr.json` in it.
        specs: its arrays, by name.
        coordinates: name of a dimension -> its labels; or any name -> labels along another dimension.
        attributes: plain JSON values kept with the group.

    """
    from zarr.storage import LocalStore

    with replacing(folder_of(path)) as draft:
        store = LocalStore(draft)
        yield {name: spec.create(store, name) for name, spec in specs.items()}
        seal(draft, specs, coordinates, attributes or {})


def write_group(
    path: Path,
    arrays: Mapping[str, tuple[Spec, Array]],
    coordinates: Coordinates,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write a whole group from arrays in memory, atomically; otherwise as `new_group`."""
    with new_group(path, {name: spec for name, (spec, _) in arrays.items()}, coordinates, attributes) as group:
        for name, (_, values) in arrays.items():
            group[name][...] = values


def open_group(path: Path) -> "zarr.Group":
    """Open a group for reading, refusing it where it or one of its chunk files is missing.

    Args:
        path: the group's folder or the `zarr.json` in it.

    Raises:
        UserError: not a sealed group, or a chunk is lost.

    """
    import zarr
    from zarr.storage import LocalStore

    folder = folder_of(path)
    if not folder.joinpath("zarr.json").is_file():
        raise UserError(f"{folder}: not a finished Zarr; run the workflow again to make it")
    try:
        group = zarr.open_group(LocalStore(folder, read_only=True), mode="r", zarr_format=3)
        arrays = dict(group.arrays())
    except DAMAGE as error:
        raise UserError(f"{folder}: not a Zarr that this version reads ({_first_line(error)}); {AGAIN}") from None
    if "digest" not in group.attrs:
        raise UserError(f"{folder}: not a finished Zarr; run the workflow again to make it")
    for name, array in arrays.items():
        _refuse_missing(folder / name, _spec_of(array))
        _refuse_misfit(folder / name, array, arrays)
    return group


def attribute(group: "zarr.Group", name: str) -> Any:  # noqa: ANN401  # any JSON value
    """Return an attribute of a group.

    Raises:
        UserError: the group has no such attribute.

    """
    if name not in group.attrs:
        raise UserError(f"{_path_of(group)}: says no {name}, as those of this version do; {AGAIN}")
    return group.attrs[name]


def folder_of(path: Path) -> Path:
    """Return the folder of a group given as that folder or as the `zarr.json` in it."""
    return path.parent if path.name == "zarr.json" else path


def array_of(group: "zarr.Group", name: str) -> "zarr.Array[Any]":
    """Return an array of a group.

    Raises:
        UserError: the group has no such array.

    """
    import zarr

    found = group.get(name)
    if not isinstance(found, zarr.Array):
        raise UserError(f"{_path_of(group)}: holds no array {name}, as those of this version do; {AGAIN}")
    return found


def read(array: "zarr.Array[Any]", index: Any = ...) -> Array:  # noqa: ANN401
    """Read an array, or the part of it that an index names, into memory.

    Raises:
        UserError: a chunk is damaged.

    """
    return _undamaged(array, lambda: array[index])


def read_rows(array: "zarr.Array[Any]", *rows: Any) -> Array:  # noqa: ANN401
    """Read rows that are named one by one, by an index along each dimension; the last dimensions whole.

    Raises:
        UserError: a chunk is damaged.

    """
    index = (*rows, *(slice(None) for _ in range(array.ndim - len(rows))))
    return _undamaged(array, lambda: array.oindex[index])


def _undamaged(array: "zarr.Array[Any]", act: Callable[[], Any]) -> Array:
    try:
        return np.asarray(act())
    except DAMAGE as error:
        path = _path_of(array)
        raise UserError(
            f"{path}: a chunk of it is damaged ({_first_line(error)}); `cutsew verify {path.parent.parent}` names it "
            "and the command that makes it again"
        ) from None


def _path_of(node: "zarr.Array[Any] | zarr.Group") -> Path:
    from zarr.storage import LocalStore

    store = node.store
    return store.root / node.path if isinstance(store, LocalStore) else Path(node.path)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def labels_of(group: "zarr.Group", dimension: str) -> list[str]:
    """Read a coordinate of text labels, such as `image` or `class`."""
    return [str(label) for label in read(array_of(group, dimension))]


def content_digest(path: Path, known: Mapping[str, str] | None = None) -> str:
    """Digest the arrays of a group: names and bytes of their metadata and of the chunk files within their shape.

    Args:
        path: the group's folder.
        known: digests of files, by path relative to `path`; files that are not in it are read.

    """
    digest = hashlib.sha256()
    for metadata in sorted(path.glob("*/zarr.json")):
        for file in ("zarr.json", *chunk_files(metadata.parent)):
            name = f"{metadata.parent.name}/{file}"
            content = (known or {}).get(name) or file_digest(path / name)
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def chunk_files(array: Path) -> Iterator[str]:
    """Name the chunk files that an array's metadata asks for, relative to the array's folder."""
    import zarr
    from zarr.storage import LocalStore

    return _spec_of(zarr.open_array(LocalStore(array, read_only=True), mode="r")).chunk_keys()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _spec_of(array: "zarr.Array[Any]") -> Spec:
    return Spec(array.shape, str(array.dtype), (), array.shards or array.chunks)


def _refuse_misfit(folder: Path, array: "zarr.Array[Any]", arrays: "Mapping[str, zarr.Array[Any]]") -> None:
    """Refuse an array that is not as long as the coordinates of its dimensions."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    for name, length in zip(names, array.shape, strict=False):
        if name in arrays and arrays[name].shape != (length,):
            raise UserError(f"{folder}: has {length} x {name}, where there are {arrays[name].shape[0]}; {AGAIN}")


def _refuse_missing(folder: Path, spec: Spec) -> None:
    for key in spec.chunk_keys():
        if not folder.joinpath(key).is_file():
            raise UserError(f"{folder / key}: this chunk is missing; run the workflow again to make it")
