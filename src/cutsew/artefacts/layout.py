"""How one array of a Zarr group lies on disk: shape, dtype, names of dimensions, chunk files."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from cutsew.errors import UserError

if TYPE_CHECKING:  # zarr takes longer to import than all else of a light stage: it is, when the first array is touched
    import zarr
    from zarr.storage import LocalStore, MemoryStore

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


def folder_of(path: Path) -> Path:
    """Return the folder of a group given as that folder or as the `zarr.json` in it."""
    return path.parent if path.name == "zarr.json" else path


def spec_of(array: "zarr.Array[Any]") -> Spec:
    """Describe an array that is there: shape, dtype and chunk files."""
    return Spec(array.shape, str(array.dtype), (), array.shards or array.chunks)


def refuse_missing(folder: Path, spec: Spec) -> None:
    """Refuse an array of which a chunk file is missing.

    Raises:
        UserError: one is.

    """
    for key in spec.chunk_keys():
        if not folder.joinpath(key).is_file():
            raise UserError(f"{folder / key}: this chunk is missing; run the workflow again to make it")
