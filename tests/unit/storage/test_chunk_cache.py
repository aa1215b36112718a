"""Jobs read the entries that hold their images, not all of them."""

import hashlib
import os

import numpy as np
import pytest

from cutsew.storage import chunk_cache
from cutsew.storage.chunk_cache import ChunkCache, cache_folder, prune
from cutsew.storage.zarr_layout import ArraySpec
from cutsew.storage.zarr_writer import write_chunk

SIZE = 4
"""Images of a shard."""


@pytest.fixture
def read(monkeypatch):
    """The entries that were read."""
    paths, original = [], chunk_cache._read_entry
    monkeypatch.setattr(chunk_cache, "_read_entry", lambda path: paths.append(path) or original(path))
    return paths


def run(folder, numbers):
    """Run the jobs of all shards after the manifest, and what the seal does; return the images computed."""
    group, manifest, computed = folder / "views.zarr", folder / "images.parquet", []
    manifest.write_text(" ".join(map(str, numbers)))
    for path in group.glob("*/c/*"):
        path.unlink()
    for shard, start in enumerate(range(0, len(numbers), SIZE)):
        part = numbers[start : start + SIZE]
        specs = {"z": ArraySpec((len(part),), "float32", ("image",), (SIZE,))}

        def compute(new, part=part):
            computed.extend(part[row] for row in new)
            return {"z": np.array([part[row] for row in new], dtype=np.float32)}

        cache = ChunkCache(group, {}, manifest)
        digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in part]
        values, _ = cache.complete(digests, specs, compute)
        assert values["z"].tolist() == part
        path = group / "z" / "c" / str(shard)
        cache.add(shard, digests, specs, {"z": (path, write_chunk(path, values["z"], specs["z"]))})
    prune(group)
    return computed


@pytest.mark.parametrize("shards", [5, 20])
def test_entries_are_read_in_proportion_to_the_shards(shards, tmp_path, read):
    images = list(range(shards * SIZE))
    assert run(tmp_path, images) == images
    assert read == []
    assert run(tmp_path, [*images[1:], 1000]) == [1000]  # each shard has images of two entries, the last one of one
    assert len(read) == shards + 2 * shards - 1


def test_a_damaged_index_is_written_again_and_the_seal_deletes_it(tmp_path):
    images = list(range(2 * SIZE))
    run(tmp_path, images)
    manifest = tmp_path / "images.parquet"
    manifest.write_text("changed")
    os.utime(manifest, ns=(1, 1))
    cache = ChunkCache(tmp_path / "views.zarr", {}, manifest)
    (folder,) = cache_folder(tmp_path / "views.zarr").iterdir()
    index = folder / "1-7.npy"
    assert not index.exists()
    index.write_bytes(b"\x93NUMPY")
    assert cache._index().shape == (3, 2 * SIZE)
    assert np.array_equal(np.load(index), cache._index())
    prune(tmp_path / "views.zarr")
    assert not index.exists()
    assert len(list(folder.iterdir())) == 2


def test_where_no_index_can_be_written_the_entries_are_found(tmp_path, monkeypatch):
    images = list(range(2 * SIZE))
    run(tmp_path, images)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", refuse)
    assert run(tmp_path, images[1:]) == []
