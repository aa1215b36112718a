"""Labeled Zarrs: written whole or chunk by chunk, opened only if complete."""

import os
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.errors import UserError
from cutsew.storage.file_digests import file_digest, remembered_digest
from cutsew.storage.manifest import ids_of
from cutsew.storage.zarr_layout import CHUNK_BYTES, ArraySpec, inner_chunk, label_spec, rows_per_chunk
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read
from cutsew.storage.zarr_writer import (
    AuxiliaryCoordinate,
    CopiedCoordinate,
    content_digest,
    finalize,
    new_group,
    write_chunk,
)


def spec(images=10, passes=3, shard=7, block=2):
    return ArraySpec((passes, images, 4), "float16", ("pass", "image", "embedding"), (block, shard, 4), (1, shard, 4))


def write(path, values, layout, attributes=None):
    block, shard, _ = layout.chunks
    known = {}
    for key in layout.chunk_keys():
        b, s = (int(i) for i in key.split("/")[1:3])
        part = values[b * block : (b + 1) * block, s * shard : (s + 1) * shard]
        known[f"crops/{key}"] = write_chunk(path / "crops" / key, part, layout)
    labels = {"image": [f"i{k}" for k in range(values.shape[1])], "pass": np.arange(values.shape[0])}
    return finalize(path, {"crops": layout}, labels, attributes or {}, known)


@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(0, 4), st.integers(1, 8), st.integers(1, 3))
def test_chunk_by_chunk_gives_back_what_was_written(tmp_path_factory, images, passes, shard, block):
    path = tmp_path_factory.mktemp("z") / "views.zarr"
    values = np.random.default_rng(0).normal(size=(passes, images, 4)).astype(np.float16)
    write(path, values, spec(images, passes, shard, block))
    assert np.array_equal(read(array_of(open_group(path), "crops")), values)


def test_empty_chunks_are_files_too(tmp_path):
    write(tmp_path / "v.zarr", np.zeros((3, 10, 4), np.float16), spec())
    assert sum(p.is_file() for p in (tmp_path / "v.zarr/crops/c").rglob("*")) == 4


def test_a_lost_chunk_is_refused(tmp_path):
    write(tmp_path / "v.zarr", np.ones((3, 10, 4), np.float16), spec())
    (tmp_path / "v.zarr/crops/c/1/1/0").unlink()
    with pytest.raises(UserError, match=r"crops/c/1/1/0: this chunk is missing"):
        open_group(tmp_path / "v.zarr")


def test_an_unsealed_group_is_refused(tmp_path):
    layout = spec()
    write_chunk(tmp_path / "v.zarr/crops/c/0/0/0", np.ones((2, 7, 4)), layout)
    with pytest.raises(UserError, match="not a finished Zarr"):
        open_group(tmp_path / "v.zarr")
    with pytest.raises(UserError, match="missing"):
        finalize(tmp_path / "v.zarr", {"crops": layout}, {}, {})


def test_the_digest_follows_the_content_and_known_digests_change_nothing(tmp_path):
    values = np.ones((3, 10, 4), np.float16)
    first = write(tmp_path / "a.zarr", values, spec())
    assert first == write(tmp_path / "b.zarr", values, spec()) == content_digest(tmp_path / "a.zarr")
    values[2, 9, 3] = 2
    assert write(tmp_path / "c.zarr", values, spec()) != first


def test_fewer_passes_ignore_the_chunks_beyond(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 10, 4)).astype(np.float16)
    write(tmp_path / "a.zarr", values, spec())
    fewer = spec(passes=2)
    finalize(tmp_path / "a.zarr", {"crops": fewer}, {"image": list("abcdefghij"), "pass": np.arange(2)}, {})
    assert np.array_equal(read(array_of(open_group(tmp_path / "a.zarr"), "crops")), values[:2])
    write(tmp_path / "b.zarr", values[:2], fewer)
    labels = {"image": list("abcdefghij"), "pass": np.arange(2)}
    assert finalize(tmp_path / "a.zarr", {"crops": fewer}, labels, {}) == finalize(
        tmp_path / "b.zarr", {"crops": fewer}, labels, {}
    )


def test_xarray_shows_names_and_labels_without_a_warning(tmp_path):
    layout = ArraySpec((2, 3), "float32", ("image", "class"), (2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with new_group(tmp_path / "f.zarr", {"z": layout}, {"image": ["a", "b"], "class": ["x", "y", "z"]}) as group:
            group["z"][...] = np.arange(6).reshape(2, 3)
        shown = xarray.open_zarr(tmp_path / "f.zarr", consolidated=False)
        assert shown["z"].sel({"image": "b", "class": "z"}).item() == 5
    assert labels_of(open_group(tmp_path / "f.zarr" / "zarr.json"), "class") == ["x", "y", "z"]


def test_a_failed_write_leaves_the_old_group(tmp_path):
    layout = ArraySpec((2,), "float32", ("image",), (2,))
    with new_group(tmp_path / "f.zarr", {"z": layout}, {}) as group:
        group["z"][...] = 1
    with pytest.raises(RuntimeError), new_group(tmp_path / "f.zarr", {"z": layout}, {}) as group:
        group["z"][...] = 2
        raise RuntimeError
    assert read(array_of(open_group(tmp_path / "f.zarr"), "z")).tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["f.zarr"]


def test_an_unknown_array_is_named(tmp_path):
    with new_group(tmp_path / "f.zarr", {"z": ArraySpec((1,), "int16", ("image",), (1,))}, {}) as group:
        group["z"][...] = 1
    with pytest.raises(UserError, match="has no array winner"):
        array_of(open_group(tmp_path / "f.zarr"), "winner")


@pytest.mark.parametrize(("images", "inner"), [(4096, 128), (128, 128), (7, 7), (200, 200)])
def test_inner_chunks(images, inner):
    assert inner_chunk(images) == inner


def test_several_coordinates_of_one_dimension_open_with_labels(tmp_path):
    layout = ArraySpec((2, 3), "float16", ("pair", "place"), (2, 3), attributes={"coordinates": "image class"})
    labels = {
        "image": AuxiliaryCoordinate("pair", ["i", "j"]),
        "class": AuxiliaryCoordinate("pair", ["cat", "dog"]),
        "place": [7, 8, 9],
    }
    with new_group(tmp_path / "m.zarr", {"maps": layout}, labels) as group:
        group["maps"][...] = np.eye(2, 3)
    opened = xarray.open_zarr(tmp_path / "m.zarr", consolidated=False)["maps"]
    assert opened["image"].dims == opened["class"].dims == ("pair",)
    chosen = opened[(opened["image"] == "j").values & (opened["class"] == "dog").values].sel(place=8)
    assert chosen.values.tolist() == [1]
    assert labels_of(open_group(tmp_path / "m.zarr"), "image") == ["i", "j"]


def test_labels_of_another_group_are_the_same_files(tmp_path):
    layout = ArraySpec((2, 3), "float32", ("image", "class"), (2, 3))
    labels = {"image": ["a", "ü"], "class": ["x", "y", "z"]}
    digests = []
    for name, changed in (("first", labels), ("second", {"image": CopiedCoordinate(tmp_path / "first.zarr")})):
        with new_group(tmp_path / f"{name}.zarr", {"z": layout}, {**labels, **changed}) as group:
            group["z"][...] = 1
        digests.append(content_digest(tmp_path / f"{name}.zarr"))
    assert digests[0] == digests[1]
    assert labels_of(open_group(tmp_path / "second.zarr"), "image") == ["a", "ü"]


@pytest.mark.parametrize("count", [0, 70_000])
def test_ids_as_arrow_text_are_written_as_a_list_is(count, tmp_path):
    names = [f"ü{i}" for i in range(count)]
    layout = ArraySpec((count, 1), "int8", ("image", "class"), (max(1, count), 1))
    rows = pd.DataFrame({"id": pd.Series(names, dtype=str), "split": ["train", "test"] * (count // 2)})
    ids = {"list": np.array(names, dtype=object), "arrow": ids_of(rows)}
    for name, images in ids.items():
        with new_group(tmp_path / f"{name}.zarr", {"z": layout}, {"image": images, "class": ["x"]}) as group:
            group["z"][...] = 1
    assert content_digest(tmp_path / "list.zarr") == content_digest(tmp_path / "arrow.zarr")
    assert labels_of(open_group(tmp_path / "arrow.zarr"), "image") == names
    assert ids_of(rows, "test").tolist() == names[1::2]


def test_a_large_file_is_digested_again_only_when_it_has_changed(tmp_path, monkeypatch):
    weights, memory = tmp_path / "w.pt", tmp_path / "results" / ".weights.json"
    weights.write_bytes(b"one")
    first = remembered_digest(weights, memory)
    assert first == file_digest(weights) and not memory.exists()  # a dry run before the first makes no folder
    with monkeypatch.context() as patched:
        patched.setattr("cutsew.storage.file_digests.file_digest", lambda _: pytest.fail("digested again"))
        assert remembered_digest(weights, memory) == first
    memory.parent.mkdir()
    remembered_digest(weights, memory)
    with monkeypatch.context() as patched:
        patched.setattr("cutsew.storage.file_digests.file_digest", lambda _: pytest.fail("digested again"))
        assert remembered_digest(weights, memory) == first
    weights.write_bytes(b"two")
    os.utime(weights, ns=(1, 1))
    second = remembered_digest(weights, memory)
    assert second == file_digest(weights) != first
    memory.write_text("[")
    assert remembered_digest(weights, memory) == second


@pytest.mark.parametrize(
    ("classes", "rows"), [(1, 4096), (80, 4096), (2048, 4096), (2049, 2048), (9605, 512), (21_841, 256), (10**8, 1)]
)
def test_rows_of_a_chunk_are_bounded_in_bytes(classes, rows):
    assert rows_per_chunk(classes) == rows
    assert rows == 1 or 4 * classes * rows <= CHUNK_BYTES
    assert label_spec(100_000, classes).chunks == (rows, classes)


def test_an_array_of_few_images_has_one_chunk():
    assert label_spec(7, 80).chunks == (7, 80)
    assert label_spec(0, 80).chunks == (1, 80)
