"""A manifest of image files, as the stage manifest would write it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cutsew.data.images import inspect
from cutsew.storage.manifest import write_manifest


def make_manifest_of(
    manifest: Path, paths: Sequence[Path], splits: Sequence[str], shard_size: int, ids: Sequence[str] | None = None
) -> pd.DataFrame:
    """Write and return a manifest; ids are the files' names unless they are given."""
    rows = []
    for row, (path, split) in enumerate(zip(paths, splits, strict=True)):
        seen = inspect(path)
        name = path.stem if ids is None else ids[row]
        rows.append((name, str(path), seen.width, seen.height, seen.bytes, seen.digest, split, row // shard_size))
    columns = ["id", "path", "width", "height", "bytes", "digest", "split", "shard"]
    images = pd.DataFrame(rows, columns=columns)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(manifest, images)
    return images


def make_noise(folder: Path) -> pd.DataFrame:
    """Write three training images of 60 x 40 to 42 random pixels, i0 to i2, and their images.parquet."""
    paths = [folder / f"{i}.bmp" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)).save(path)
    return make_manifest_of(folder / "images.parquet", paths, ["train"] * 3, 3, ["i0", "i1", "i2"])
