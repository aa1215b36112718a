"""Coordinates of a Zarr group: names of photos, classes and passes along its arrays' dimensions."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.artefacts.atomic import replacing

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Along:
    """Labels of a dimension that is not named as they are: one of several coordinates of it.

    Arrays that they belong to name them in the attribute `coordinates`, separated by spaces; xarray reads that.
    """

    dimension: str
    values: Sequence[Any] | Array


@dataclass(frozen=True)
class Same:
    """The labels that the dimension has in another group: its files are copied, so no list of all photos is held.

    Attributes:
        group: the other group's folder.

    """

    group: Path


Labels = Sequence[Any] | Array | Along | Same
Coordinates = Mapping[str, Labels]


def write_coordinate(group: Path, name: str, values: Labels) -> None:
    """Write one coordinate into a group's folder, atomically.

    Raises:
        UserError: the disk refuses it; or labels to be copied are damaged.

    """
    with replacing(group / name) as draft:
        if isinstance(values, Same):
            _refuse_damaged(values.group, name)
            shutil.copytree(values.group / name, draft)
        else:
            _write_labels(draft, name, values)


def _write_labels(folder: Path, name: str, values: Sequence[Any] | Array | Along) -> None:
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import LocalStore

    dimension, values = (values.dimension, values.values) if isinstance(values, Along) else (name, values)
    labels = np.asarray(values)
    text = labels.dtype.kind in "UO"
    zarr.create_array(
        LocalStore(folder),
        shape=labels.shape,
        dtype="string" if text else labels.dtype.name,
        chunks=(max(1, min(len(labels), 65536)),),
        compressors=(ZstdCodec(), Crc32cCodec()),
        dimension_names=(dimension,),
        config={"write_empty_chunks": True},
    )[...] = labels.astype(object) if text else labels


def _refuse_damaged(group: Path, name: str) -> None:
    """Read a coordinate chunk by chunk, so that its checksums are looked at before its files are copied."""
    from cutsew.artefacts.reading import array_of, open_group, read

    labels = array_of(open_group(group), name)
    for start in range(0, labels.shape[0], labels.chunks[0]):
        read(labels, slice(start, start + labels.chunks[0]))
