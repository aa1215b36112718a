"""Preprocessing that is not OpenAI's, on its way through every place that makes a model's input."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from manifests import make_manifest_of
from PIL import Image

from cutsew.commands import export as tool
from cutsew.config.loading import DEFAULT
from cutsew.config.method import NoSewConfig
from cutsew.config.networks import parse_student, parse_teacher
from cutsew.data.loader import plain_batches, tiled_batches
from cutsew.errors import UserError
from cutsew.inference.classifier import open_classifier
from cutsew.inference.new_images import PredictOptions, predict
from cutsew.method.adapter import Adapter
from cutsew.method.crops import Square, whole_box
from cutsew.method.resample import crop_resize_all
from cutsew.method.score import sigmoid
from cutsew.method.student_views import resized_view, tile_views
from cutsew.models import backbones, teachers
from cutsew.models.student import load, save
from cutsew.pipeline.plan import Plan
from cutsew.stages.encode import encode
from cutsew.stages.explain import _whole
from cutsew.stages.seal import seal
from cutsew.stages.tagclip import Images as PatchImages
from cutsew.stages.text import text
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.training.sewing_plan import TrainingImages
from cutsew.training.sewn_dataset import SewnDataset

OWN = {"mean": [0.5, 0.25, 0.75], "std": [0.5, 0.25, 0.125], "interpolation": "bilinear"}
TINY = {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 32, "preprocessing": OWN}
RECORDED = {"resize": "squash", **OWN}
SIZES = {"reduction": 4, "width": 16, "layers": 1, "heads": 2, "feedforward": 16, "dropout": 0.1}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two images with hard edges, and images.parquet of them."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        noise = np.random.default_rng(i).integers(0, 2, (70, 90, 3), dtype=np.uint8) * 255
        Image.fromarray(noise).save(path)
    make_manifest_of(folder / "images.parquet", paths, ["train"] * 2, 2)
    return folder


def by_hand(view, size=32):
    """Squash and normalize: (1, 3, S, S) float32."""
    pixels = np.asarray(view.resize((size, size), Image.Resampling.BILINEAR)) / 255
    normal = (pixels - np.array(OWN["mean"])) / np.array(OWN["std"])
    return torch.from_numpy(normal).permute(2, 0, 1)[None].float()


def test_views_and_their_records(tmp_path, images):
    raw = {"classes": ["cat", "dog"], "teacher": {"open_clip": TINY}, "cut": {"passes": 2, "passes_per_job": 1}}
    plan, views = Plan(raw), tmp_path / "views.zarr"
    chosen = plan.settings(DEFAULT, "encode")
    for block in (0, 1):
        encode(images / "images.parquet", views, settings=chosen, shard=0, block=block, passes=1)
    seal(images / "images.parquet", views, plan.settings(DEFAULT, "seal"))
    text(tmp_path / "text.zarr", plan.settings(DEFAULT, "text"))
    teacher = teachers.build(parse_teacher(chosen["teacher"]), "cpu")
    embedded = read(array_of(open_group(views), "global"))
    for i, row in enumerate(embedded):
        with Image.open(images / f"{i}.png") as image, torch.no_grad():
            expected = teacher._model.encode_image(by_hand(image), normalize=True)[0]
            other = teacher.embed_images(crop_resize_all(image, whole_box(*image.size)[None], 32))[0]
        assert np.abs(row - expected.numpy()).max() < 2e-3 < np.abs(row - other.numpy()).max()
    records = [*views.with_suffix(".records").glob("*.json"), tmp_path / "text.json"]
    for path in records:
        facts = json.loads(path.read_text())["facts"]
        assert facts["preprocessing"] == RECORDED
        assert facts["preprocessing_from"] == "teacher.open_clip.preprocessing"
    assert open_group(views).attrs["preprocessing"] == RECORDED
    changed = json.loads(records[0].read_text())
    changed["facts"]["preprocessing"]["mean"] = [0.5] * 3
    records[0].write_text(json.dumps(changed))
    with pytest.raises(UserError, match="encoded by a different teacher than its neighbors"):
        seal(images / "images.parquet", views, plan.settings(DEFAULT, "seal"))


def test_maps_and_patches_see_the_same_pixels(images):
    teacher = teachers.build(parse_teacher({"kind": "open_clip", "open_clip": TINY}), "cpu")
    image_rows = pd.read_parquet(images / "images.parquet")
    with Image.open(image_rows["path"][0]) as image:
        (whole,) = _whole(image_rows[:1], teacher)
        assert torch.equal(whole, crop_resize_all(image, whole_box(*image.size)[None], 32, "bilinear"))
        patches = PatchImages(image_rows, 16, 24, teacher.preprocessing.interpolation)[0]
        resized = image.resize((patches.shape[2], patches.shape[1]), Image.Resampling.BILINEAR)
        assert np.array_equal(patches.permute(1, 2, 0), np.asarray(resized))


def test_sewn_plain_and_tiled_images_are_resized_as_the_backbone_asks(images):
    image_rows = pd.read_parquet(images / "images.parquet")
    paths, sizes = image_rows["path"].tolist(), image_rows[["width", "height"]].to_numpy(np.int64)
    training = TrainingImages(paths, image_rows["digest"].tolist(), sizes, np.array([0, 1]))
    square = Square(32, "bilinear")
    dataset = SewnDataset(training, NoSewConfig(), square, 9, strong=False, skip_plain=False, workers=0)
    with Image.open(paths[0]) as image:
        expected, tiles = resized_view(image, 32, "bilinear"), tile_views(image, 32, "bilinear")
        assert np.array_equal(
            expected.transpose(1, 2, 0), np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
        )
    assert np.array_equal(dataset[0, 0].weak, expected)
    assert np.array_equal(next(plain_batches(paths, square, 2, 0))[0], expected)
    assert np.array_equal(next(tiled_batches(paths, square, 2, 0))[0], tiles)
    assert np.array_equal(tiles[0], expected)


def test_a_student_keeps_its_preprocessing_when_it_is_exported(tmp_path, images):
    """Run, exported folder and ONNX file answer alike, whatever the weights come with elsewhere."""
    pytest.importorskip("onnxscript")
    chosen = parse_student({"kind": "open_clip", "open_clip": TINY})
    backbone = backbones.build(chosen, "cpu")
    torch.manual_seed(1)
    adapter = Adapter(backbone.width, 2, **SIZES).eval()
    save(tmp_path / "adapter.safetensors", adapter, backbone, SIZES, ["ant", "bee"])
    tool.write(tmp_path, tmp_path / "out", None, None, onnx=True)
    for folder in (tmp_path, tmp_path / "out"):
        described = yaml.safe_load((folder / "model.yaml").read_text())
        assert described["preprocessing"] == {"size": 32, **RECORDED}
        assert not {"preprocessing", "tag"} & set(described["backbone"]["open_clip"])
        assert load(folder).backbone.preprocessing == backbone.preprocessing
    with Image.open(images / "0.png") as image, torch.no_grad():
        features = backbone.tower(by_hand(image))
        expected = sigmoid(adapter(features)[0].double().numpy())
    for model in (tmp_path, tmp_path / "out", tmp_path / "out" / "model.onnx"):
        student = open_classifier(model, "cpu")
        assert student.square == (32, "bilinear")
        predict(images / "0.png", student, tmp_path / "found.jsonl", PredictOptions())
        result = json.loads((tmp_path / "found.jsonl").read_text())["probabilities"]
        assert list(result.values()) == pytest.approx(expected.tolist(), abs=2e-5)
    described["preprocessing"]["interpolation"] = "lanczos"
    (tmp_path / "out" / "model.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(UserError, match=r"model\.yaml: .*interpolation"):
        load(tmp_path / "out")
