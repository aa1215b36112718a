"""The bytes of a Zarr array's files, for those that write and read them one by one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from cutsew.storage.zarr_layout import Array, ArraySpec
from cutsew.storage.zarr_reader import read


def chunk_bytes(values: Array, spec: ArraySpec) -> bytes:
    """Encode one chunk file of an array.

    Args:
        values: shape at most `spec.chunks`; the rest of the chunk is padded with zeros.
        spec: of the array.

    """
    files: dict[str, Buffer] = {}
    array = spec.create(MemoryStore(files), "chunk", shape=spec.chunks)
    padded = np.zeros(spec.chunks, dtype=spec.dtype)
    padded[tuple(slice(0, n) for n in values.shape)] = values
    array[...] = padded
    return files[_only_key(spec)].to_bytes()


def chunk_values(data: bytes, spec: ArraySpec) -> Array:
    """Decode one chunk file of an array: shape `spec.chunks`.

    Raises:
        Exception: of whatever kind the decoder raises, where the bytes are damaged.

    """
    files: dict[str, Buffer] = {}
    array = spec.create(MemoryStore(files), "chunk", shape=spec.chunks)
    files[_only_key(spec)] = default_buffer_prototype().buffer.from_bytes(data)
    return read(array)


def array_metadata(spec: ArraySpec) -> bytes:
    """Encode the `zarr.json` of an array."""
    files: dict[str, Buffer] = {}
    spec.create(MemoryStore(files), "array")
    return files["array/zarr.json"].to_bytes()


def group_metadata(attributes: Mapping[str, Any]) -> bytes:
    """Encode the `zarr.json` of a group; attributes are plain JSON values."""
    files: dict[str, Buffer] = {}
    zarr.create_group(MemoryStore(files), attributes=dict(attributes))
    return files["zarr.json"].to_bytes()


def _only_key(spec: ArraySpec) -> str:
    return "/".join(("chunk", "c", *("0" for _ in spec.chunks)))
