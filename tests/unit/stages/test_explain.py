"""Stage explain, and the maps of teachers and students that it writes."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray
from sewing_world import CLASSES, TEST, backbone, make_world, run_train, settings
from test_predict import run_predict
from tiny_models import checkpoint

from cutsew.config.networks import parse_teacher
from cutsew.errors import UserError
from cutsew.method.adapter import Adapter
from cutsew.method.cam import hires_cam
from cutsew.models import teachers
from cutsew.models.student import load
from cutsew.models.teacher_grid import last_grid
from cutsew.runtime import batching
from cutsew.stages import explain as stage
from cutsew.storage.manifest import read_manifest
from cutsew.storage.zarr_layout import ArraySpec
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.storage.zarr_writer import write_group

TINY = {"kind": "open_clip", "open_clip": {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 96}}


def build(section=TINY["open_clip"]):
    return teachers.build(parse_teacher({"kind": "open_clip", "open_clip": section}), "cpu")


def random_images(count, size, seed=0):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(seed))


def make(folder, test=TEST):
    """Write all that the stage reads; the embeddings are random."""
    world = make_world(folder, test)
    adapter = run_train(world, folder, settings())
    run_predict(world, adapter, folder)
    teacher, ids = build(), read_manifest(world / "images.parquet")["id"].tolist()
    whole = np.random.default_rng(1).normal(size=(len(ids), teacher.width)).astype(np.float16)
    spec = ArraySpec(whole.shape, "float16", ("image", "embedding"), whole.shape)
    write_group(
        folder / "views.zarr",
        {"global": (spec, whole)},
        {"image": ids},
        {"preprocessing": teacher.preprocessing.describe()},
    )
    texts = teacher.embed_texts([f"a photo of a {name}" for name in ("cat", "dog", "bus")]).numpy()
    write_texts(folder, texts, teacher.weights_digest)
    return folder


def write_texts(folder, texts, weights, classes=CLASSES):
    spec = ArraySpec(texts.shape, "float32", ("class", "embedding"), texts.shape)
    write_group(
        folder / "text.zarr", {"text": (spec, texts)}, {"class": classes}, {"weights": weights, "logit_scale": 10.0}
    )


def run(folder, pairs=40, sample=600, batch_size=2):
    chosen = {"teacher": TINY, "explain": {"num_maps": pairs, "num_embeddings": sample}}
    zarrs = [folder / f"{name}.zarr" for name in ("views", "text", "scores", "refined")]
    adapter, maps = folder / "adapter.safetensors", folder / "maps.zarr"
    stage.run(folder / "images.parquet", adapter, maps, chosen, *zarrs, "cpu", batch_size, 0, build=backbone)
    return xarray.open_zarr(maps, consolidated=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("explain"))


def test_golden(folder):
    result = run(folder)
    assert list(zip(result["image"].values, result["class"].values, strict=True)) == PAIRS
    for name, numbers in GOLDEN.items():
        assert result[name].dtype == np.float16
        assert result[name].values[-1].ravel()[:6].tolist() == pytest.approx(numbers, abs=2e-3), name


PAIRS = [("i04", "bee"), ("i07", "ant"), ("i07", "bee"), ("i04", "cat")]
GOLDEN = {
    "teacher": [0.3201, 0.0, 0.0, 0.1169, 0.0, 0.0],
    "student": [0.0, 0.0, 0.6313, 0.0, 0.0201, 0.0858],
    "before": [-0.8696, 0.077, 0.4451, -0.2291, -0.8623, 0.6196],
    "after": [-0.4807, -1.1299, -0.436, -0.2561, 1.7705, -0.5303],
}


def test_the_layout_is_what_the_report_reads(folder):
    result, pairs = run(folder, sample=2), len(PAIRS)
    assert result["teacher"].shape == (pairs, 3, 3) and result["student"].shape == (pairs, 4, 4)
    assert result["before"].shape == (2, 64) and result["after"].shape == (2, 8)
    assert {"image", "class"} <= set(result["teacher"].coords) & set(result["student"].coords)
    for name in ("teacher", "student"):
        peaks = result[name].max(dim=result[name].dims[1:]).values
        assert result[name].min() >= 0 and set(peaks) <= {0, 1}
    held_out = read_manifest(folder / "images.parquet", split="test").sort_values("digest")
    assert result["sample"].values.tolist() == held_out["id"][:2].tolist()
    whole = xarray.open_zarr(folder / "views.zarr", consolidated=False)["global"]
    assert np.array_equal(result["before"], whole.sel(image=result["sample"].values))
    record = json.loads((folder / "maps.json").read_text())
    assert record["facts"]["pairs"] == pairs and "scores.zarr" in record["inputs"]


def test_bits_do_not_depend_on_batches_and_threads(folder, monkeypatch):
    run(folder, batch_size=1)
    digest = open_group(folder / "maps.zarr").attrs["digest"]
    with ThreadPoolExecutor(3, initializer=lambda: torch.set_num_threads(1)) as pool:
        monkeypatch.setattr(batching, "worker_pool", lambda: pool)
        run(folder, batch_size=32)
    assert open_group(folder / "maps.zarr").attrs["digest"] == digest


def test_views_of_other_preprocessing_are_refused(tmp_path):
    described = make(tmp_path) / "views.zarr" / "zarr.json"
    changed = json.loads(described.read_text())
    changed["attributes"]["preprocessing"]["mean"] = [0.5] * 3
    described.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"views\.zarr: encoded with other preprocessing than the teacher's; delete it"):
        run(tmp_path)


def test_without_held_out_images_the_refined_labels_choose(tmp_path):
    result = run(make(tmp_path, test=0), sample=5)
    z = read(array_of(open_group(tmp_path / "refined.zarr"), "z"))
    ids = read_manifest(tmp_path / "images.parquet")["id"]
    most_confident = {(ids[row], name) for row, name in zip(z.argmax(axis=0), CLASSES, strict=True)}
    assert most_confident <= set(zip(result["image"].values, result["class"].values, strict=True))
    assert result["sample"].size == 5
    assert "refined.zarr" in json.loads((tmp_path / "maps.json").read_text())["inputs"]


@pytest.mark.parametrize(
    ("weights", "classes", "message"),
    [("other", CLASSES, "teacher with other weights"), (None, ["x", "y", "z"], "not those of the student")],
)
def test_texts_of_another_run_are_refused(tmp_path, weights, classes, message):
    make(tmp_path)
    write_texts(tmp_path, np.zeros((3, 64), dtype=np.float32), weights or build().weights_digest, classes)
    with pytest.raises(UserError, match=message):
        run(tmp_path)
    assert not (tmp_path / "maps.zarr").exists()


@pytest.mark.parametrize(("name", "side"), [("test-resnet", 2), ("test-vit", 2), ("cutsew-tiny", 3)])
def test_any_clip_has_maps_that_stand_alone(tmp_path, name, side):
    given = TINY["open_clip"]
    if name != "cutsew-tiny":
        given = {"model": name, "pretrained": str(checkpoint(tmp_path, name)[0]), "image_size": None}
    teacher = build(given)
    views, texts = random_images(5, teacher.image_size), teacher.embed_texts(["cat", "dog", "bus"])
    classes = torch.tensor([0, 1, 2, 0, 1])
    maps = teacher.maps(views, texts, classes)
    assert maps.shape == (5, side, side) and maps.max() == 1 and maps.min() >= 0
    assert torch.equal(teacher.maps(views[3:4], texts, classes[3:4]), maps[3:4])
    assert not torch.equal(teacher.maps(views[:1], texts, torch.tensor([1])), maps[:1])


def test_a_tower_without_a_known_grid_is_refused():
    with pytest.raises(UserError, match=r"there is no known feature grid in its Linear.*explain\.kind: none"):
        last_grid(torch.nn.Linear(1, 1))


def test_a_students_maps_are_those_of_its_own_logits(folder):
    """The gradient by differences: along any direction the logit changes as the gradient says."""
    student = load(folder, build=backbone)
    images, classes = random_images(3, student.image_size), torch.tensor([0, 2, 1])
    grid = student.backbone(images).double().requires_grad_()
    adapter = student.adapter.double()
    (gradients,) = torch.autograd.grad(adapter(grid)[torch.arange(3), classes].sum(), [grid])
    direction = torch.randn(grid.shape, generator=torch.manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        step = (adapter(grid + 1e-6 * direction) - adapter(grid - 1e-6 * direction)) / 2e-6
    along = (gradients * direction).sum(dim=(1, 2, 3))
    torch.testing.assert_close(step[torch.arange(3), classes], along, atol=1e-6, rtol=1e-4)
    expected = hires_cam(grid.detach(), gradients).float()
    adapter.float()
    torch.testing.assert_close(student.maps(images, classes), expected, atol=1e-4, rtol=1e-4)


def test_pooled_classes_by_hand():
    adapter = Adapter(4, 2, reduction=2, width=4, layers=1, heads=2, feedforward=4).eval()
    features = torch.randn(3, 4, 2, 2, generator=torch.manual_seed(0))
    with torch.no_grad():
        decoded, p = adapter.decode(features), adapter(features).sigmoid()
        expected = (p[:, :1] * decoded[:, 0] + p[:, 1:] * decoded[:, 1]) / p.sum(dim=1, keepdim=True)
        torch.testing.assert_close(adapter.pool(features), expected)
        adapter.bias.fill_(-500)  # every probability is 0 in float32
        assert adapter.pool(features).isfinite().all()


def test_a_single_class_has_a_map_of_its_own():
    """Less the mean of one class nothing would be left."""
    teacher = build()
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.manual_seed(0))
    texts = teacher.embed_texts(["a photo of a cat", "a photo of a wall"])
    alone, sibling = (teacher.maps(images, texts[:n], torch.zeros(2, dtype=torch.int64)) for n in (1, 2))
    assert alone.amax(dim=(1, 2)).tolist() == sibling.amax(dim=(1, 2)).tolist() == [1, 1]
    assert not torch.equal(alone, sibling)  # a background word takes part in what all have in common
