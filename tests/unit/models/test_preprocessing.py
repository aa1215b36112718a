"""Where a model's preprocessing is written down, by tag and by local file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cutsew.config.base import OpenClipModelConfig
from cutsew.config.networks import TimmModelConfig
from cutsew.errors import UserError
from cutsew.models.preprocessing import EFFICIENTNET, OPENAI, Preprocessing, of_open_clip, of_timm
from cutsew.runtime.lazy_imports import import_torchvision

import_torchvision()
import open_clip  # noqa: E402

SECTION = "teacher.open_clip"
MODELS = sorted({model for model, _ in open_clip.list_pretrained()})
USED = ("mean", "std", "interpolation")
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}


def tags_of(model):
    return {tag: open_clip.get_pretrained_cfg(model, tag) for tag in open_clip.list_pretrained_tags_by_model(model)}


def found(model, pretrained, **more):
    return of_open_clip(OpenClipModelConfig(model=model, pretrained=str(pretrained), **more), SECTION)


def said(cfg):
    images = Preprocessing(tuple(cfg["mean"]), tuple(cfg["std"]), cfg["interpolation"])
    return images, bool(cfg.get("quick_gelu", False))


def both(known):
    return known.preprocessing, known.quick_gelu


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pt"
    path.touch()
    return path


@pytest.mark.parametrize("model", MODELS)
def test_tag_and_local_file_give_the_same_for_every_model_of_open_clip(weights, model):
    """What the file's source gives is what its tag gives, or one line that says what to set."""
    local_values = bool(open_clip.get_model_config(model).get("quick_gelu"))
    requested = {
        tag: said(cfg | {"quick_gelu": local_values or cfg.get("quick_gelu")}) for tag, cfg in tags_of(model).items()
    }
    for tag, expected in requested.items():
        assert both(found(model, tag)) == expected
        assert both(found(model, weights, tag=tag)) == expected
    images, gelus = {images for images, _ in requested.values()}, {gelu for _, gelu in requested.values()}
    if len(images) == 1 and (local_values or len(gelus) == 1):
        assert [both(found(model, weights))] == list(set(requested.values()))
    else:
        with pytest.raises(UserError, match=rf"^{SECTION}\.pretrained: .*{model} differ in .*; set {SECTION}\.tag to"):
            found(model, weights)
    for tag, cfg in tags_of(model).items():
        described = {"model_cfg": open_clip.get_model_config(model) | {"quick_gelu": requested[tag][1]}}
        described["preprocess_cfg"] = {key: cfg[key] for key in (*USED, "resize_mode")}
        weights.with_name("open_clip_config.json").write_text(json.dumps(described))
        assert both(found(model, weights)) == requested[tag]


@pytest.mark.parametrize(
    ("model", "mean", "interpolation"),
    [
        ("ViT-B-32-SigLIP2-256", 0.5, "bicubic"),
        ("PE-Core-T-16-384", 0.5, "bilinear"),
        ("MobileCLIP2-S0", 0.0, "bilinear"),
        ("RN50x64", OPENAI["mean"][0], "bicubic"),
    ],
)
def test_known_models_by_local_file(weights, model, mean, interpolation):
    images = found(model, weights).preprocessing
    assert (images.mean[0], images.interpolation) == (mean, interpolation)


@pytest.mark.parametrize("model", ["RN50x64", "RN101", "ViT-L-14-336", "ViT-B-32-quickgelu"])
def test_openai_weights_get_their_activation(weights, model):
    assert found(model, weights).quick_gelu and found(model, "openai").quick_gelu


def test_the_first_place_that_gives_it_counts(weights):
    sibling = weights.with_name("open_clip_config.json")
    sibling.write_text(json.dumps({"preprocess_cfg": HALF}))
    local_values = {"mean": [0.1, 0.2, 0.3]}
    model = "RN50"
    images = found(model, weights, preprocessing=local_values).preprocessing
    assert (images.mean, images.std) == ((0.1, 0.2, 0.3), (0.5,) * 3)
    assert images.source == f"{SECTION}.preprocessing, {sibling}"
    assert found(model, weights).preprocessing.source == str(sibling)
    assert found(model, weights).quick_gelu  # of which the file says nothing: all tags of RN50
    assert found(model, weights, tag="openai").preprocessing.source == "tag openai"
    assert not found(model, weights, quick_gelu=False).quick_gelu
    assert found(model, "openai", preprocessing=local_values).preprocessing.mean == (0.1, 0.2, 0.3)
    sibling.unlink()
    assert found(model, weights).preprocessing.source == "all weights that open_clip has of RN50"


def test_a_configuration_gives_its_own_size_and_the_interpolation_that_open_clip_takes(weights):
    sibling = weights.with_name("open_clip_config.json")
    described = {"preprocess_cfg": {"mean": 0.5, "std": 0.5}, "model_cfg": {"vision_cfg": {"image_size": [320, 320]}}}
    sibling.write_text(json.dumps(described))
    known = found("RN50", weights)
    assert (known.preprocessing, known.image_size) == (Preprocessing((0.5,) * 3, (0.5,) * 3, "bicubic"), 320)
    assert not known.quick_gelu  # the configuration describes the whole model


def test_a_model_without_tags_is_refused_until_it_is_said(weights):
    with pytest.raises(UserError, match=rf"^{SECTION}\.pretrained: .* nothing gives its mean, std and interpolation;"):
        found("ViT-S-16", weights)
    with pytest.raises(UserError, match="nothing gives its interpolation;"):
        found("ViT-S-16", weights, preprocessing={"mean": [0.5] * 3, "std": [0.5] * 3})
    known = found("ViT-S-16", weights, preprocessing=HALF)
    assert both(known) == (Preprocessing((0.5,) * 3, (0.5,) * 3, "bicubic"), False)


def test_the_tiny_clip_has_its_own():
    for pretrained in ("demo", "any/where.safetensors"):
        assert both(found("cutsew-tiny", pretrained)) == said(OPENAI)


def timm_found(model, weights, **more):
    return of_timm(TimmModelConfig(model=model, weights=str(weights), **more))


def test_timm_models_by_local_file(weights):
    from timm.models import get_arch_pretrained_cfgs  # noqa: PLC0415

    imagenet = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
    assert timm_found("tf_efficientnet_lite0", "package") == EFFICIENTNET
    assert timm_found("resnet10t", weights).mean == timm_found("resnet10t", "pretrained").mean
    with pytest.raises(UserError, match=r"^student\.timm\.weights: .*resnet50 differ in interpolation; set"):
        timm_found("resnet50", weights)
    for name, cfg in get_arch_pretrained_cfgs("resnet50").items():
        if cfg.has_weights:
            assert timm_found(name, weights) == Preprocessing(cfg.mean, cfg.std, cfg.interpolation)
            assert timm_found(name, "pretrained") == timm_found(name, weights)
    described = {"architecture": "resnet50", "pretrained_cfg": HALF | {"mean": [0.485, 0.456, 0.406]}}
    sibling = weights.with_name("config.json")
    sibling.write_text(json.dumps(described))
    assert timm_found("resnet50", weights) == Preprocessing(imagenet.mean, (0.5,) * 3, "bicubic")
    sibling.write_text(json.dumps({"model_type": "clip"}))  # another library's
    assert timm_found("resnet10t", weights).source == "all weights that timm has of resnet10t"
    assert timm_found("resnet50", Path("none.pt"), preprocessing=HALF).mean == (0.5,) * 3


def test_a_refusal_before_the_first_job_imports_no_torch(weights):
    code = f"""
import sys
from cutsew.config.base import OpenClipModelConfig
from cutsew.errors import UserError
from cutsew.models.preprocessing import of_open_clip
try:
    of_open_clip(OpenClipModelConfig(model="ViT-B-32", pretrained={str(weights)!r}), "teacher.open_clip")
except UserError as error:
    assert "quick_gelu" in str(error)
else:
    raise AssertionError("not refused")
assert not {{"torch", "open_clip", "timm"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
