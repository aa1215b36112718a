"""A student that looks at tiles too: the numbers, the stage, and new images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sewing_world import CLASSES, TEST, TRAIN, backbone, make_world, run_train, settings

from cutsew.config import load
from cutsew.data import loader
from cutsew.data.loader import tiled_batches
from cutsew.errors import UserError
from cutsew.inference.classifier import open_classifier
from cutsew.inference.new_images import PredictOptions
from cutsew.inference.new_images import predict as look
from cutsew.inference.test_time_ensembles import TileEnsemble
from cutsew.method.crops import Square
from cutsew.method.ensemble import ScoreStats, rescale
from cutsew.method.score import sigmoid
from cutsew.method.student_views import NUM_VIEWS, tile_boxes, tile_views, tiled
from cutsew.pipeline.graph import STAGES
from cutsew.stages import predict
from cutsew.stages import tiles as stage
from cutsew.storage.manifest import read_manifest
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read


def test_boxes_by_hand():
    # 0.6 * 10 = 6 across and 0.6 * 5 = 3 down; the right ones begin at 10 - 6 = 4, the lower ones at 5 - 3 = 2
    assert tile_boxes(10, 5) == [(0, 0, 6, 3), (4, 0, 10, 3), (0, 2, 6, 5), (4, 2, 10, 5)]
    assert tile_boxes(1, 1) == [(0, 0, 1, 1)] * 4


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_tiles_cover_the_image(width, height):
    boxes = tile_boxes(width, height)
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {
        (max(1, round(0.6 * width)), max(1, round(0.6 * height)))
    }
    lefts, rights = sorted({box[0] for box in boxes}), sorted({box[2] for box in boxes})
    tops, bottoms = sorted({box[1] for box in boxes}), sorted({box[3] for box in boxes})
    assert lefts[0] == tops[0] == 0 and rights[-1] == width and bottoms[-1] == height
    assert lefts[-1] <= rights[0] and tops[-1] <= bottoms[0]  # no gap in the middle


def test_tiled_by_hand():
    # class 0: whole 1, tiles -2, 3, 0, 0: (1 + 3) / 2; class 1: whole -1, tiles -4, -6, -5, -7: (-1 - 4) / 2
    z = np.array([[[1, -1], [-2, -4], [3, -6], [0, -5], [0, -7]]], np.float32)
    assert tiled(z).tolist() == [[2, -2.5]]


@given(arrays(np.float64, (3, NUM_VIEWS, 2), elements=st.floats(-13, 13)), st.permutations([1, 2, 3, 4]))
def test_which_tile_sees_it_does_not_matter(z, order):
    assert np.array_equal(tiled(z), tiled(z[:, [0, *order]]))
    assert np.allclose(tiled(np.repeat(z[:, :1], NUM_VIEWS, axis=1)), z[:, 0])  # tiles that add nothing change nothing


def test_looks_are_the_whole_and_its_corners():
    image = Image.new("RGB", (10, 5))
    image.paste((200, 0, 0), (6, 0, 10, 2))  # seen in the upper right tile, which begins at 4, and not in the left ones
    seen = tile_views(image, 8)
    assert seen.shape == (NUM_VIEWS, 3, 8, 8) and seen.dtype == np.uint8
    assert np.array_equal(seen[0], np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC)).transpose(2, 0, 1))
    assert [bool(view.max() > 0) for view in seen] == [True, False, True, False, False]


def test_on_scale_by_hand():
    # 3 + 2 * 1.5; a deviation of 0 counts as 1: 4 + 1.5
    stats = ScoreStats(np.array([3.0, 4.0]), np.array([2.0, 0.0]))
    assert rescale(np.array([[1.5, 1.5]]), stats).tolist() == [[6.0, 5.5]]


def test_batches_hold_so_many_views(tmp_path):
    paths = [str(tmp_path / f"{index}.png") for index in range(7)]
    for path in paths:
        Image.new("RGB", (12, 8)).save(path)
    assert [len(batch) for batch in tiled_batches(paths, Square(4, "bicubic"), 16, 0)] == [3, 3, 1]
    assert [len(batch) for batch in tiled_batches(paths[:2], Square(4, "bicubic"), 1, 0)] == [1, 1]


# The stage


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A trained student, its scores, and those with tiles."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    run_train(folder, folder, settings(train__epochs=1))
    given = folder / "images.parquet", folder / "adapter.safetensors"
    predict.run(*given, folder / "scores.zarr", "cpu", 4, 0, backbone)
    stage.run(*given, folder / "tiles.zarr" / "zarr.json", "cpu", 32, 0, backbone)
    return folder


def z_of(folder, name="tiles.zarr"):
    return read(array_of(open_group(folder / name), "z"))


def test_golden(world):
    """Raise the stage's version in pipeline.py when these numbers change."""
    assert STAGES["tiles"].version == 2
    assert z_of(world).ravel().tolist() == pytest.approx(GOLDEN, abs=1e-3)


GOLDEN = [-0.27926, 0.13637, -0.76943, -0.28237, 0.15353, -0.77636, -0.27882, 0.14606, -0.77146]


def test_the_scale_is_that_of_the_whole_images(world):
    student = open_classifier(world, "cpu", backbone)
    images = read_manifest(world / "images.parquet")

    def seen(split):
        paths = list(images.loc[images["split"] == split, "path"])
        batches = list(tiled_batches(paths, student.square, 32, 0))
        return np.concatenate([student.logits(b.flatten(0, 1)).numpy().reshape(len(b), NUM_VIEWS, -1) for b in batches])

    trained, held_out = seen("train").astype(float), seen("test").astype(float)
    whole, both = trained[:, 0], (trained[:, 0] + trained[:, 1:].max(axis=1)) / 2
    expected = (held_out[:, 0] + held_out[:, 1:].max(axis=1)) / 2
    expected = (expected - both.mean(axis=0)) / both.std(axis=0) * whole.std(axis=0) + whole.mean(axis=0)
    assert z_of(world) == pytest.approx(expected, abs=1e-3)
    table = pd.read_csv(world / "tiles.csv").set_index("class")
    assert list(table.index) == CLASSES and table["tiles_mean"].to_numpy() == pytest.approx(both.mean(axis=0), abs=1e-4)
    assert labels_of(open_group(world / "tiles.zarr"), "image") == list(images.loc[images["split"] == "test", "id"])


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (15, 2)])
def test_batches_and_workers_change_nothing(world, tmp_path, batch, workers):
    stage.run(
        world / "images.parquet",
        world / "adapter.safetensors",
        tmp_path / "tiles.zarr",
        "cpu",
        batch,
        workers,
        backbone,
    )
    # equal bits for adapters of real size; products of matrices as small as here differ in the last one by their place
    assert z_of(tmp_path) == pytest.approx(z_of(world), abs=1e-6)


def test_the_cost_is_told(world):
    record = json.loads((world / "tiles.json").read_text())
    assert set(record["outputs"]) == {"tiles.zarr", "tiles.csv"}
    facts = record["facts"]
    assert facts["views_of_student_per_image"] == 5 and facts["images"] == TEST and facts["reference_images"] == TRAIN


def test_a_run_without_held_out_images_ends_in_an_empty_zarr(tmp_path):
    folder = make_world(tmp_path, test=0)
    run_train(folder, folder, settings(train__epochs=1))
    given = folder / "images.parquet", folder / "adapter.safetensors", folder / "tiles.zarr"
    stage.run(*given, "cpu", 32, 0, backbone)
    assert z_of(folder).shape == (0, len(CLASSES)) and (folder / "tiles.csv").is_file()


def test_new_images_are_told_what_held_out_ones_are(world, tmp_path):
    student = open_classifier(world, "cpu", backbone)
    expected = sigmoid(z_of(world).astype(float))
    for path, row in zip(read_manifest(world / "images.parquet", split="test")["path"], expected, strict=True):
        look(Path(path), student, tmp_path / "said.csv", PredictOptions(tiles=TileEnsemble(world, student)))
        stated = (tmp_path / "said.csv").read_text().splitlines()[1]
        assert [float(x) for x in stated.split(",")[2:]] == pytest.approx(row.tolist(), abs=1e-4)


def test_new_images_and_their_tiles_are_cut_from_one_decode(world, tmp_path, monkeypatch):
    student, decoded, calls = open_classifier(world, "cpu", backbone), [], []
    read, predict = loader.read_image, student.predict
    monkeypatch.setattr(loader, "read_image", lambda path: decoded.append(path) or read(path))
    student = replace(student, predict=lambda pixels: calls.append(len(pixels)) or predict(pixels))
    paths = read_manifest(world / "images.parquet", split="test")["path"].tolist()
    how = PredictOptions(tiles=TileEnsemble(world, student), batch_size=10)
    look(str(Path(paths[0]).parent), student, tmp_path / "said.csv", how)
    assert len(decoded) == len(set(decoded)) == TRAIN + TEST
    assert calls == [10] * ((TRAIN + TEST) // 2)  # two images and their tiles at a time


def test_what_cannot_be_is_refused(world, tmp_path):
    with pytest.raises(UserError, match=r"--tiles: .* has no tiles\.csv; run it with predict\.tiles: true"):
        TileEnsemble(tmp_path, open_classifier(world, "cpu", backbone))
    with pytest.raises(UserError, match=r"predict\.tiles: needs a student"):
        load({"classes": ["a", "b"], "student": {"kind": "none"}, "predict": {"tiles": True}})
