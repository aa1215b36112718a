"""Kept features: the same training bit for bit, whatever of them is there, damaged, or could not be written."""

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from sewing_world import TRAIN, backbone, make_world, settings
from test_train import KilledError, assert_same, kill_at

from cutsew.errors import UserError
from cutsew.models.backbones import Backbone
from cutsew.stages import train as stage
from cutsew.training import cache_policy, feature_cache, feature_chunks
from cutsew.training.cache_policy import CachePolicy
from cutsew.training.feature_cache import FeatureCache, Sizes
from cutsew.training.features import CachedFeatures

STRONG = {"train__strong_weight": 0.7}
PLAIN = {"train__epochs": 3}  # enough that the features of plain images are computed once


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(
        feature_cache, "CHUNK_BYTES", 3 * 12 * 4 * 4 * 4
    )  # three images: chunks and batches of four overlap


@pytest.fixture
def computed(monkeypatch):
    """Count the images that the backbone is given."""
    counts = []
    forward = Backbone.forward
    monkeypatch.setattr(Backbone, "forward", lambda self, x: counts.append(len(x)) or forward(self, x))

    def taken():
        total = sum(counts)
        counts.clear()
        return total

    return taken


def train(world: Path, out: Path, features: Path | None, limit="auto", workers=0, **changes) -> Path:
    kept = None if features is None else CachePolicy(features, limit)
    where = (world / "images.parquet", world / "fused.zarr", out / "adapter.safetensors")
    stage.run(*where, settings(**changes), world / "patches.parquet", "cpu", workers, 0, backbone, kept)
    return out


def files(features: Path) -> list[Path]:
    return sorted(path for path in features.rglob("c/**/*") if path.is_file())


@pytest.mark.parametrize("changes", [{}, STRONG, PLAIN, {**PLAIN, **STRONG}, {"sew": {"kind": "none"}}])
def test_the_second_training_asks_the_backbone_nothing(world, tmp_path, computed, changes):
    without = train(world, tmp_path / "without", None, **changes)
    full = computed()
    first = train(world, tmp_path / "first", tmp_path / "features", **changes)
    assert computed() == full > 0
    second = train(world, tmp_path / "second", tmp_path / "features", **changes)
    assert computed() == 0
    assert_same(without, first)
    assert_same(without, second)


def test_what_does_not_change_the_features_uses_them(world, tmp_path, computed):
    train(world, tmp_path / "first", tmp_path / "features")
    computed()
    changes = {"train__lr_adapter": 5e-4, "train__em_weight": 0.5, "train__batch_size": 3, "train__schedule": "cosine"}
    changes |= {"train__adapter__width": 12, "train__lr_estimator": 0.1, "train__correct_refined": True}
    result = train(world, tmp_path / "found", tmp_path / "features", **changes)
    assert computed() == 0
    assert_same(train(world, tmp_path / "without", None, **changes), result)


@pytest.mark.parametrize("changes", [{"train__seed": 8}, {"sew__q": 0.5}, STRONG, {"student__precision": "bfloat16"}])
def test_what_changes_the_features_uses_others(world, tmp_path, computed, changes):
    train(world, tmp_path / "first", tmp_path / "features")
    computed()
    train(world, tmp_path / "other", tmp_path / "features", **changes)
    assert computed() > 0
    assert len(list((tmp_path / "features").glob("*.zarr"))) == 2


def test_other_weights_use_others(world, tmp_path, monkeypatch):
    train(world, tmp_path / "first", tmp_path / "features")
    described = Backbone.describe
    monkeypatch.setattr(Backbone, "describe", lambda self: {**described(self), "weights_digest": "of others"})
    train(world, tmp_path / "second", tmp_path / "features")
    assert len(list((tmp_path / "features").glob("*.zarr"))) == 2


def test_more_epochs_use_what_is_there(world, tmp_path, computed):
    changes = {"sew__at_least_one": True}  # plain images' features are never kept, whatever the number of epochs
    train(world, tmp_path / "first", tmp_path / "features", **changes)
    computed()
    more = train(world, tmp_path / "more", tmp_path / "features", train__epochs=3, **changes)
    assert computed() == TRAIN
    assert_same(train(world, tmp_path / "without", None, train__epochs=3, **changes), more)


def test_workers_find_what_none_kept(world, tmp_path, computed):
    """Images that are missing are sewn by the workers, between others whose features are on disk."""
    first = train(world, tmp_path / "first", tmp_path / "features", **STRONG)
    computed()
    for gone in (1, -1):
        files(tmp_path / "features")[gone].unlink()
    assert_same(first, train(world, tmp_path / "second", tmp_path / "features", workers=2, **STRONG))
    assert 0 < computed() < 2 * 2 * TRAIN


@pytest.mark.parametrize("number", [1, 4, 7])
def test_a_killed_training_leaves_what_the_next_one_uses(world, tmp_path, monkeypatch, computed, number):
    without = train(world, tmp_path / "without", None, **PLAIN)
    with monkeypatch.context() as patch:
        kill_at(patch, number)
        with pytest.raises(KilledError):
            train(world, tmp_path / "out", tmp_path / "features", **PLAIN)
    assert_same(without, train(world, tmp_path / "out", tmp_path / "features", **PLAIN))  # from its checkpoint
    assert_same(without, train(world, tmp_path / "again", tmp_path / "features", **PLAIN))
    computed()
    assert_same(without, train(world, tmp_path / "last", tmp_path / "features", **PLAIN))
    assert computed() == 0  # what the killed one had not finished is there now


def test_half_a_file_is_not_read(world, tmp_path):
    """What a killed process leaves is a draft, which is nobody's chunk, and goes once it is old."""
    first = train(world, tmp_path / "first", tmp_path / "features")
    whole = files(tmp_path / "features")[0]
    draft = whole.with_name(".0.elsewhere.123.draft")
    draft.write_bytes(whole.read_bytes()[:20])
    whole.unlink()
    assert_same(first, train(world, tmp_path / "second", tmp_path / "features"))
    assert draft.exists() and whole.exists()  # it may be another job's
    os.utime(draft, (time.time() - 2 * feature_chunks.STALE_SECONDS,) * 2)
    train(world, tmp_path / "third", tmp_path / "features")
    assert not draft.exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-7], lambda data: b"", lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]]
)
@pytest.mark.parametrize("array", ["weak", "strong", "plain"])
def test_a_damaged_chunk_is_recomputed(world, tmp_path, computed, caplog, array, damage):
    changes = {**PLAIN, **STRONG}
    first = train(world, tmp_path / "first", tmp_path / "features", **changes)
    computed()
    file = next(path for path in files(tmp_path / "features") if array in path.parts)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert_same(first, train(world, tmp_path / "second", tmp_path / "features", **changes))
    assert computed() > 0
    assert f"{file}: unreadable" in caplog.text
    assert file.read_bytes() == whole


@pytest.mark.parametrize(("limit", "kept"), [("0.000001", False), ("0", False), ("off", False), ("1", True)])
def test_a_limit_is_kept(world, tmp_path, computed, limit, kept):
    first = train(world, tmp_path / "first", tmp_path / "features", limit)
    assert bool(files(tmp_path / "features")) == kept
    assert_same(first, train(world, tmp_path / "without", None))
    fact = json.loads((first / "adapter.json").read_text())["facts"]["features"]
    assert (fact is not None) == kept == (tmp_path / "features" / str(fact)).is_dir()


def test_features_of_others_count(world, tmp_path):
    train(world, tmp_path / "first", tmp_path / "features", "1")
    other = tmp_path / "features" / "other.zarr"
    other.mkdir()
    with other.joinpath("large").open("wb") as file:
        file.truncate(cache_policy.GB)
    train(world, tmp_path / "second", tmp_path / "features", "1", train__seed=8)
    assert len(list((tmp_path / "features").iterdir())) == 2
    train(world, tmp_path / "third", tmp_path / "features", "1.1", train__seed=8)
    assert len(list((tmp_path / "features").iterdir())) == 3


def test_auto_leaves_half_of_the_disk_free(world, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_policy, "_free", lambda folder: 1000)
    train(world, tmp_path / "out", tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_limit_that_is_none_is_refused(world, tmp_path):
    with pytest.raises(UserError, match="^--cache-features: much: not auto, off or a number of GB"):
        train(world, tmp_path / "out", tmp_path / "features", "much")


@pytest.mark.parametrize("written", [0, 2, 5])
def test_a_full_disk_ends_the_keeping_and_not_the_training(world, tmp_path, monkeypatch, caplog, written):
    whole, count = feature_chunks.write_whole, [0]

    def full(path, data):
        count[0] += 1
        if count[0] > written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(path, data)

    for module in (feature_cache, feature_chunks):
        monkeypatch.setattr(module, "write_whole", full)
    out = train(world, tmp_path / "out", tmp_path / "features")
    assert caplog.text.count("No space left on device") == 1 and count[0] == written + 1
    assert_same(train(world, tmp_path / "without", None), out)


def test_two_at_once_do_not_disturb_each_other(world, tmp_path, monkeypatch):
    """Another job with the same key starts and ends in the midst of one."""
    without = train(world, tmp_path / "without", None)
    batches = CachedFeatures.batches

    def interrupted(self, steps):
        for number, batch in enumerate(batches(self, steps)):
            if number == 3 and not (tmp_path / "inner").exists():
                train(world, tmp_path / "inner", tmp_path / "features")
            yield batch

    monkeypatch.setattr(CachedFeatures, "batches", interrupted)
    outer = train(world, tmp_path / "outer", tmp_path / "features")
    for folder in (tmp_path / "inner", outer):
        assert_same(without, folder)


def test_it_opens_as_a_zarr(world, tmp_path):
    """An auditor finds each image's features, and what they are features of."""
    train(world, tmp_path / "out", tmp_path / "features", **PLAIN)
    (folder,) = (tmp_path / "features").iterdir()
    opened = xarray.open_zarr(folder, consolidated=False)
    assert opened["weak"].dims == ("epoch", "place", "channel", "row", "column")
    assert opened["weak"].shape == (3, TRAIN, 12, 4, 4) and opened["plain"].shape == (TRAIN, 12, 4, 4)
    assert np.isfinite(opened["plain"].values).all() and opened["plain"].values.any(axis=(1, 2, 3)).all()
    pasted = opened["weak"].values.any(axis=(2, 3, 4)).mean()
    assert 0.3 < pasted < 0.9  # p is 0.6, and where nothing is pasted stand zeros
    assert opened.attrs["seed"] == 9 and opened.attrs["sew"]["p"] == 0.6


def test_sizes_in_bytes():
    assert Sizes(2, 10, (3, 4, 4), strong=False, plain=False).bytes(0.6) == 2 * 10 * 48 * 4
    assert Sizes(2, 10, (3, 4, 4), strong=True, plain=False).bytes(0.6) == 2 * 2 * 10 * 48 * 4
    assert Sizes(2, 10, (3, 4, 4), strong=False, plain=True).bytes(0.5) == (2 * 10 * 0.5 + 10) * 48 * 4
    assert Sizes(2, 10, (3, 4, 4), strong=True, plain=True).bytes(0.5) == (2 * 10 * 1.5 + 10) * 48 * 4


@pytest.mark.parametrize("start", [0, 2, 4])
def test_only_chunks_whose_images_all_came_are_written(tmp_path, start):
    """Seven images in chunks of three, in batches of two from `start` on: 2 misses the beginning of chunk 0."""
    record = FeatureCache(tmp_path / "a.zarr", {}, Sizes(1, 7, (12, 4, 4), strong=False, plain=False))
    given = torch.rand(7, 12, 4, 4)
    for first in range(start, 7, 2):
        record.put(0, first, {"weak": given[first : first + 2]})
    record.flush()
    chunk = [record.contains(0, a, b) for a, b in ((0, 3), (3, 6), (6, 7))]
    assert chunk == [start == 0, start <= 3, True]
    result = record.get(0, 6, 7)
    assert result is not None and torch.equal(result["weak"], given[6:])
    assert record.get(0, 2, 4) is None or start == 0
