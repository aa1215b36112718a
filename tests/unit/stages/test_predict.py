"""Stage predict and the standalone student."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sewing_world import CLASSES, TEST, backbone, make_world, run_train, settings

from cutsew.errors import UserError
from cutsew.method.adapter import Adapter
from cutsew.models.student import load
from cutsew.stages import predict as stage
from cutsew.storage.manifest import read_manifest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def adapter(world, tmp_path_factory):
    return run_train(world, tmp_path_factory.mktemp("out"), settings())


def run_predict(world, adapter, out, batch_size=2, workers=0):
    stage.run(world / "images.parquet", adapter, out / "scores.zarr", "cpu", batch_size, workers, build=backbone)
    return read(array_of(open_group(out / "scores.zarr"), "z"))


def test_golden(world, adapter, tmp_path):
    z = run_predict(world, adapter, tmp_path)
    assert z.dtype == np.float32
    assert z.ravel().tolist() == pytest.approx(GOLDEN, abs=1e-4)


GOLDEN = [-0.208737, 0.192944, -0.664034, -0.215111, 0.207458, -0.661859, -0.207523, 0.191964, -0.663572]


def test_scores_are_the_students_logits_of_the_test_images_in_order(world, adapter, tmp_path):
    z = run_predict(world, adapter, tmp_path)
    images = read_manifest(world / "images.parquet", split="test")
    group = open_group(tmp_path / "scores.zarr")
    assert labels_of(group, "image") == images["id"].tolist()
    assert labels_of(group, "class") == CLASSES
    assert z.shape == (TEST, 3)
    student = load(adapter.parent, build=backbone)
    for path, row in zip(images["path"], z, strict=True):
        with Image.open(path) as image:
            squashed = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC))
        logits = student(torch.from_numpy(squashed.copy()).permute(2, 0, 1)[None])
        assert logits[0].tolist() == pytest.approx(row.tolist(), abs=1e-5)
    record = json.loads((tmp_path / "scores.json").read_text())
    assert set(record["outputs"]) == {"scores.zarr"}
    assert record["facts"]["images"] == TEST


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 1), (8, 2)])
def test_scores_do_not_depend_on_batches_and_workers(world, adapter, tmp_path, batch_size, workers):
    one = run_predict(world, adapter, tmp_path / "one")
    other = run_predict(world, adapter, tmp_path / "other", batch_size, workers)
    assert np.array_equal(one, other)


def test_without_test_images_there_is_an_empty_array_that_evaluate_can_open(tmp_path):
    world = make_world(tmp_path / "world", test=0)
    adapter = run_train(world, tmp_path / "out", settings(train__epochs=1))
    assert run_predict(world, adapter, tmp_path).shape == (0, 3)
    outcome = StagePredictions("student", tmp_path / "scores.zarr")
    assert outcome.classes == CLASSES
    assert outcome.read([]).shape == (0, 3)


def test_the_student_needs_its_two_files_alone(world, adapter, tmp_path):
    for name in ("adapter.safetensors", "model.yaml"):
        tmp_path.joinpath(name).write_bytes(adapter.with_name(name).read_bytes())
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    here, available = load(adapter, build=backbone), load(tmp_path, build=backbone)
    assert torch.equal(here(images), available(images))
    assert available.classes == CLASSES
    assert not available.training


def test_model_yaml_says_all_that_is_needed(adapter):
    model = yaml.safe_load(adapter.with_name("model.yaml").read_text())
    assert model["classes"] == CLASSES
    preprocessing = {"size": 16, "resize": "squash", "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.25] * 3}
    assert model["preprocessing"] == preprocessing
    assert model["grid"] == [4, 4]
    assert model["backbone"]["open_clip"]["model"] == "RN101"
    assert Adapter(classes=3, **model["adapter"]).max_grid == 50


def test_files_that_do_not_belong_together_are_refused(adapter, tmp_path):
    def copies():
        for name in ("adapter.safetensors", "model.yaml"):
            tmp_path.joinpath(name).write_bytes(adapter.with_name(name).read_bytes())

    copies()
    (tmp_path / "adapter.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"adapter\.safetensors: does not belong to the model\.yaml"):
        load(tmp_path, build=backbone)
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapter\.safetensors: no such file"):
        load(tmp_path, build=backbone)
    copies()
    (tmp_path / "model.yaml").write_text("classes: [")
    with pytest.raises(UserError, match=r"model\.yaml, line \d+: not YAML"):
        load(tmp_path, build=backbone)
    (tmp_path / "model.yaml").unlink()
    with pytest.raises(UserError, match=r"model\.yaml: no such file"):
        load(tmp_path, build=backbone)


def test_another_backbone_is_refused(adapter):
    def other(settings, device):
        result = backbone(settings, device)
        result.weights_digest = "other"
        return result

    with pytest.raises(UserError, match="the backbone's weights differ"):
        load(adapter, build=other)


def test_scores_have_no_thresholds(world, adapter, tmp_path):
    with pytest.raises(UserError, match=r"zarr\.json: is a Zarr of logits only; omit all other"):
        stage.predict(world / "images.parquet", adapter, tmp_path / "scores.zarr" / "zarr.json", threshold=0.5)
    assert not (tmp_path / "scores.zarr").exists()


def test_a_bad_image_leaves_no_scores(adapter, tmp_path):
    world = make_world(tmp_path / "world")
    path = read_manifest(world / "images.parquet", split="test")["path"].iloc[0]
    Path(path).write_bytes(b"nothing")
    with pytest.raises(UserError, match="not an image"):
        run_predict(world, adapter, tmp_path, workers=1)
    assert not (tmp_path / "scores.zarr").exists()
