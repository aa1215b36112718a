"""Writing Zarr v3 groups with named dimensions and coordinates (the names of images, classes and passes along them).

- `new_group`: one job writes a whole group (fused.zarr and the like).
- `write_chunk` by many jobs, one chunk file each, then `finalize` by one job, which writes the metadata last.
  So an array that opens is complete.

Chunks whose values all equal the fill value are written too; a missing chunk file therefore always means loss.
Each chunk ends in a checksum (CRC-32C) that every reader checks, so that a flipped byte is no value.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cutsew.storage.atomic import atomic_path, report_write_errors
from cutsew.storage.file_digests import file_digest
from cutsew.storage.zarr_layout import Array, ArraySpec, folder_of, refuse_missing, spec_of

if TYPE_CHECKING:
    import pandas as pd
    import zarr

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class AuxiliaryCoordinate:
    """Labels of a dimension that is not named as they are: one of several coordinates of it.

    Arrays that they belong to name them in the attribute `coordinates`, separated by spaces; xarray reads that.
    """

    dimension: str
    values: Sequence[Any] | Values


@dataclass(frozen=True)
class CopiedCoordinate:
    """The labels that the dimension has in another group: its files are copied, so no list of all images is held.

    Attributes:
        group: the other group's folder.

    """

    group: Path


Labels: TypeAlias = "Sequence[Any] | Values | pd.Index | AuxiliaryCoordinate | CopiedCoordinate"
Coordinates = Mapping[str, Labels]


def write_coordinate(group: Path, name: str, values: Labels) -> None:
    """Write one coordinate into a group's folder, atomically.

    Raises:
        UserError: the disk refuses it; or labels to be copied are damaged.

    """
    with atomic_path(group / name) as draft:
        if isinstance(values, CopiedCoordinate):
            _refuse_damaged(values.group, name)
            shutil.copytree(values.group / name, draft)
        else:
            _write_labels(draft, name, values)


def _write_labels(folder: Path, name: str, values: "Sequence[Any] | Values | pd.Index | AuxiliaryCoordinate") -> None:
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import LocalStore

    dimension, values = (values.dimension, values.values) if isinstance(values, AuxiliaryCoordinate) else (name, values)
    text = np.asarray(values[:1]).dtype.kind in "UO"
    labels: Any = values if text else np.asarray(values)
    size = max(1, min(len(labels), 65536))
    array = zarr.create_array(
        LocalStore(folder),
        shape=(len(labels),),
        dtype="string" if text else labels.dtype.name,
        chunks=(size,),
        compressors=(ZstdCodec(), Crc32cCodec()),
        dimension_names=(dimension,),
        config={"write_empty_chunks": True},
    )
    for start in range(0, len(labels), size):  # a chunk of text at a time: an array of all would be twice the list
        part = labels[start : start + size]
        array[start : start + size] = np.asarray(part, dtype=object) if text else part


def _refuse_damaged(group: Path, name: str) -> None:
    """Read a coordinate chunk by chunk, so that its checksums are looked at before its files are copied."""
    from cutsew.storage.zarr_reader import array_of, open_group, read

    labels = array_of(open_group(group), name)
    for start in range(0, labels.shape[0], labels.chunks[0]):
        read(labels, slice(start, start + labels.chunks[0]))


def write_chunk(path: Path, values: Array, spec: ArraySpec) -> str:
    """Write one chunk file of an array whose metadata may not exist yet; return the file's digest.

    Args:
        path: the chunk file, `<array>/c/<i>/<j>/...`.
        values: shape at most `spec.chunks`; the rest of the chunk is padded with zeros.
        spec: of the array.

    """
    from cutsew.storage.zarr_chunks import chunk_bytes

    data = chunk_bytes(values, spec)
    with atomic_path(path) as draft:
        draft.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def finalize(
    path: Path,
    specs: Mapping[str, ArraySpec],
    coordinates: Coordinates,
    attributes: Mapping[str, Any],
    digests: Mapping[str, str] | None = None,
) -> str:
    """Write the metadata of a group whose chunk files are all there; return the digest of its content.

    The group's own `zarr.json` is written last and holds the digest, so that it changes whenever the content does.

    Args:
        path: the group's folder.
        specs: its arrays, by name.
        coordinates: name of a dimension -> its labels; or any name -> labels along another dimension.
        attributes: plain JSON values kept with the group.
        digests: digests of chunk files, by path relative to `path`, where their writers recorded them; others are read.

    Raises:
        UserError: a chunk file is missing.

    """
    from cutsew.storage.zarr_chunks import array_metadata, group_metadata

    with report_write_errors(path, path):
        path.joinpath("zarr.json").unlink(missing_ok=True)
        for name, spec in specs.items():
            refuse_missing(path / name, spec)
            for left in path.joinpath(name).glob("zarr*"):  # of an earlier seal, or of one that was killed
                left.unlink()
            with atomic_path(path / name / "zarr.json") as draft:  # not by zarr: it writes one for the group as well
                draft.write_bytes(array_metadata(spec))
        for name, labels in coordinates.items():
            write_coordinate(path, name, labels)
        digest = content_digest(path, digests)
    with atomic_path(path / "zarr.json") as draft:
        draft.write_bytes(group_metadata({**attributes, "digest": digest}))
    return digest


@contextmanager
def new_group(
    path: Path,
    specs: Mapping[str, ArraySpec],
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

    with atomic_path(folder_of(path)) as draft:
        store = LocalStore(draft)
        yield {name: spec.create(store, name) for name, spec in specs.items()}
        finalize(draft, specs, coordinates, attributes or {})


def write_group(
    path: Path,
    arrays: Mapping[str, tuple[ArraySpec, Array]],
    coordinates: Coordinates,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write a whole group from arrays in memory, atomically; otherwise as `new_group`."""
    with new_group(path, {name: spec for name, (spec, _) in arrays.items()}, coordinates, attributes) as group:
        for name, (_, values) in arrays.items():
            group[name][...] = values


def content_digest(path: Path, digests: Mapping[str, str] | None = None) -> str:
    """Digest the arrays of a group: names and bytes of their metadata and of the chunk files within their shape.

    Args:
        path: the group's folder.
        digests: digests of files, by path relative to `path`; files that are not in it are read.

    """
    digest = hashlib.sha256()
    for metadata in sorted(path.glob("*/zarr.json")):
        for file in ("zarr.json", *chunk_files(metadata.parent)):
            name = f"{metadata.parent.name}/{file}"
            content = (digests or {}).get(name) or file_digest(path / name)
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def chunk_files(array: Path) -> Iterator[str]:
    """List the chunk files that an array's metadata requires, relative to the array's folder."""
    import zarr
    from zarr.storage import LocalStore

    return spec_of(zarr.open_array(LocalStore(array, read_only=True), mode="r")).chunk_keys()
