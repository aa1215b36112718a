"""Reading and writing `images.parquet`, the stable list of all images, and its shards."""

import csv
import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cutsew.errors import UserError
from cutsew.storage.atomic import atomic_path
from cutsew.storage.tables import read_parquet, read_row_groups, release_unused

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "path", "width", "height", "bytes", "digest", "split", "shard")
SPLITS = ("train", "test")
SHARDS = "shards.csv"
SHARD_COLUMNS = ("shard", "images", "digest", "listed", "placed")
"""Next to the manifest: number, count of images and digests of each shard, which are read without pandas."""

LIST_AGAIN = "delete it and run the workflow with --forcerun manifest"


def write_manifest(path: Path, images: "pd.DataFrame") -> None:
    """Write the manifest atomically, each shard as a row group of its own, so that a job reads no other shard's rows.

    Args:
        path: `images.parquet`.
        images: columns `COLUMNS`: id (text, unique), path (text, absolute or relative to the working folder), width
            and height (pixels, after EXIF orientation), bytes, digest (SHA-256 of the file), split (train or test),
            shard (int, ascending).

    """
    with atomic_path(path) as draft:
        most = int(images["shard"].value_counts().max()) if len(images) else None
        images[list(COLUMNS)].to_parquet(draft, index=False, row_group_size=most)


def read_manifest(
    path: Path, shard: int | None = None, split: str | None = None, columns: Sequence[str] = COLUMNS
) -> "pd.DataFrame":
    """Read the manifest, or one shard or split of it, with a `row` column: the row's index in every (N, ...) array.

    Args:
        path: `images.parquet`.
        shard: number of the shard; None for all.
        split: train or test; None for both.
        columns: those to read, that of `shard` or `split` among them where these are given.

    Raises:
        UserError: there is no such file.

    """
    if not path.is_file():
        raise UserError(f"{path}: no such manifest; run the workflow to make it")
    if shard is None:
        images = read_parquet(path, columns)
        images.insert(0, "row", range(len(images)))
    else:
        first, images = read_row_groups(path, columns, "shard", shard)
        images.insert(0, "row", range(first, first + len(images)))
        images = images[images["shard"] == shard]
    if split is not None:
        images = images[images["split"] == split].reset_index(drop=True)
        release_unused()
    return images.reset_index(drop=True)


def ids_of(images: "pd.DataFrame", split: str | None = None) -> "pd.Index":
    """Return the ids of the images, or of a split of them, in the order of the manifest; columns id and split."""
    import pandas as pd

    ids: pd.Index = pd.Index(images["id"] if split is None else images.loc[images["split"] == split, "id"])
    return ids


def paths_of(images: "pd.DataFrame", ids: Collection[str]) -> dict[str, str]:
    """Return the paths of some images of the manifest, by id."""
    rows = images[images["id"].isin(list(ids))]
    return dict(zip(rows["id"], rows["path"], strict=True))


def find_train_test_duplicates(images: "pd.DataFrame") -> list[str]:
    """Name the held-out images that are byte for byte among the training images too; columns id, digest and split."""
    tested = images["split"] == "test"
    held_out, digests = images[tested], images["digest"]
    trained = digests[~tested & digests.isin(held_out["digest"])]  # few, so that no set of all digests is made
    return [str(name) for name in held_out.loc[held_out["digest"].isin(trained), "id"]]


def shard_digests(images: "pd.DataFrame") -> dict[int, str]:
    """Digest the rows of each shard: what an encoding job depends on (ids and content, not paths or splits)."""
    digests: dict[int, str] = {}
    for shard, rows in images.groupby("shard", sort=True):
        lines = "\n".join(f"{name}\t{digest}" for name, digest in zip(rows["id"], rows["digest"], strict=True))
        digests[int(str(shard))] = hashlib.sha256(lines.encode()).hexdigest()[:16]
    return digests


def read_shards(table: Path) -> tuple[dict[str, str], ...]:
    """Read shards.csv: a row per shard, with the columns shard, images, digest, listed and placed, as text.

    Raises:
        UserError: it is damaged or lacks a column.

    """
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            lost = set(SHARD_COLUMNS) - set(rows.fieldnames or ())
            shards = tuple(rows)
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{table}: not a table of shards; {LIST_AGAIN}") from None
    if lost or any(None in row or not all(row.values()) or not row["shard"].isdecimal() for row in shards):
        raise UserError(f"{table}: not a complete table of shards; {LIST_AGAIN}")
    return shards


def batched_slices(images: int, size: int) -> Iterator[slice]:
    """Cut the rows of an array into slices of at most `size`, so that memory is bounded."""
    for start in range(0, images, size):
        yield slice(start, min(start + size, images))
