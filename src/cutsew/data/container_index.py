"""What one tar or Parquet file holds, found by its headers or its metadata alone; no image is read."""

import errno
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from cutsew.config.base import is_url
from cutsew.config.dataset import ParquetDatasetConfig
from cutsew.data.folder import Leftover
from cutsew.data.image_bytes import ParquetRow, TarMember, open_container
from cutsew.data.images import SUFFIXES
from cutsew.data.parquet_columns import id_column, image_column, texts_of
from cutsew.errors import UserError

COMPANIONS = (".cls", ".cls2", ".json", ".txt", ".caption", ".index", ".id", ".pyd", ".npy", ".bbox")
"""Suffixes of labels and metadata that WebDataset keeps next to an image; they are counted and never read."""

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
"""How files of gzip, bzip2, xz and zstd start."""


@dataclass(frozen=True)
class Damage:
    """A tar or Parquet file that cannot be read to its end, why, and what to do."""

    reason: str
    cure: str = "copy it again from its source"


@dataclass(frozen=True)
class Companion:
    """A member of a tar with labels or metadata, by its suffix."""

    suffix: str


Entry = tuple[str, str] | Leftover | Companion | Damage
"""What an index holds: id and address of an image, or what else is there."""


def index_tar(container: str) -> Iterator[Entry]:
    """List the members of a tar by their headers alone."""
    with open_container(container, ahead=True) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    tar.members.clear()  # type: ignore[attr-defined]  # it keeps all of them otherwise
                    if not member.isdir():
                        yield _member(container, member)
                file.seek(tar.offset)
                last = file.read(tarfile.BLOCKSIZE)
        except tarfile.TarError as error:
            yield Damage("truncated") if "unexpected end" in str(error) else _no_tar(file)
            return
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) not in (None, errno.EINVAL) or is_url(container):
                raise
            yield Damage("damaged")  # a header led to a place where no file can be
            return
    # Where tarfile finds no header it stops without an error; only two blocks of zeros are a tar's end.
    if len(last) < tarfile.BLOCKSIZE:
        yield Damage("truncated")
    elif last.strip(tarfile.NUL):
        yield Damage("damaged")


def _no_tar(file: IO[bytes]) -> Damage:
    """Say what a file is that does not start as a tar does."""
    file.seek(0)
    if file.read(6).startswith(COMPRESSED):
        return Damage("compressed, so that no image can be read by its place", "decompress it (gunzip, bunzip2, unxz)")
    return Damage("not a tar")


def _member(container: str, member: tarfile.TarInfo) -> Entry:
    """Return a member's id and address, or what it is instead of an image."""
    path = PurePosixPath(member.name)
    name = member.name.removeprefix("./")
    suffix, shown = path.suffix.lower(), f"{container}: {name}"
    if path.name.startswith("."):
        return Leftover(shown, "hidden", "hidden file")
    if suffix in COMPANIONS:
        return Companion(suffix)
    if suffix not in SUFFIXES:
        return Leftover(shown, "other", "member of another kind")
    if not member.isreg() or member.issparse():
        return Leftover(shown, "other", "not a plain file: a link, device or sparse file")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{shown!a}: this name is not UTF-8; rename it") from None
    return name, str(TarMember(container, member.name, member.offset_data, member.size))


def index_parquet(dataset: ParquetDatasetConfig, container: str) -> Iterator[Entry]:
    """List the rows of a Parquet file; of its columns, only that of the ids is read."""
    import pyarrow.parquet as pq  # noqa: PLC0415  # only this kind needs it
    from pyarrow import ArrowException  # noqa: PLC0415

    with open_container(container, ahead=False) as file:
        try:
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            column, nested = image_column(schema, dataset.image, container)
            named = id_column(schema, dataset.id, column, container, nested=nested)
            values = [] if named is None else parquet.read(columns=[named]).column(0).to_pylist()
            rows = parquet.metadata.num_rows
        except (ArrowException, OSError) as error:  # pyarrow's own OSErrors have no number
            if isinstance(error, OSError) and (error.errno is not None or is_url(container)):
                raise
            yield Damage("truncated, damaged or not a Parquet file")
            return
    ids = texts_of(values, named, container)
    if len(ids) < rows or len(set(ids)) < rows:
        if dataset.id is not None:
            raise UserError(
                f"dataset.id: column {dataset.id} of {container} is empty or the same in two rows; name another"
            )
        ids = [f"{PurePosixPath(container).stem}/{row:08d}" for row in range(rows)]
    leaf = f"{column}.bytes" if nested else column
    for row, name in enumerate(ids):
        yield name, str(ParquetRow(container, leaf, row))
