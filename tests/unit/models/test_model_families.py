"""One model of each family with random weights in a file: by tag and by local file it answers as open_clip's own does.

Text towers, and visual towers of open_clip's own kinds, are cut down to a layer or two; the tags are the real ones.
"""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cutsew.config.networks import parse_student, parse_teacher
from cutsew.method.crops import cut, whole_box
from cutsew.models import backbones, clip, teachers
from cutsew.runtime.lazy_imports import import_torchvision

import_torchvision()
import open_clip  # noqa: E402
import timm  # noqa: E402
from open_clip import factory  # noqa: E402

SMALL_TEXT = {"layers": 1, "width": 64, "heads": 2, "vocab_size": 49408, "context_length": 8}
RESNET, VIT = {"layers": [1, 1, 1, 1], "width": 16}, {"layers": 2, "width": 64, "head_width": 32}
FAMILIES = [
    ("ViT-B-32-SigLIP2-256", "webli", {}, 384),
    ("PE-Core-T-16-384", "meta", {}, 224),
    ("MobileCLIP2-S0", "dfndr2b", {}, 192),
    ("EVA02-B-16", "merged2b_s8b_b131k", {"timm_model_name": "eva02_tiny_patch14_224"}, 280),
    ("ViTamin-S", "datacomp1b", {}, 192),
    ("RN50", "openai", RESNET, 448),
    ("ViT-B-32", "openai", VIT, 320),
]


def shrink(monkeypatch, name, vision):
    config = copy.deepcopy(factory._MODEL_CONFIGS[name])
    config["vision_cfg"] |= vision
    config["text_cfg"] = {**config["text_cfg"], **SMALL_TEXT, "hf_tokenizer_name": ""}
    monkeypatch.setitem(factory._MODEL_CONFIGS, name, config)
    if "siglip" in config["vision_cfg"].get("timm_model_name", ""):
        whole = timm.create_model
        monkeypatch.setattr(clip, "tokenizer", lambda *_: open_clip.SimpleTokenizer())  # its own is on the hub
        monkeypatch.setattr(timm, "create_model", lambda *args, **options: whole(*args, depth=2, **options))


def settings(name, pretrained, size=None, **more):
    section = {"model": name, "pretrained": str(pretrained), "image_size": size, **more}
    return parse_teacher({"kind": "open_clip", "precision": "float32", "open_clip": section})


@pytest.mark.parametrize(("name", "tag", "vision", "other"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_tag_and_file_answer_as_open_clip_does(tmp_path, monkeypatch, name, tag, vision, other):
    shrink(monkeypatch, name, vision)
    path = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    save_file(open_clip.create_model(name, pretrained_text=False).state_dict(), path)
    for module in (clip, factory):
        monkeypatch.setattr(module, "download_pretrained", lambda *_, **__: str(path))
    needs_gelu = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
    theirs, _, transform = open_clip.create_model_and_transforms(
        name, pretrained=tag, image_resize_mode="squash", force_quick_gelu=needs_gelu
    )
    named = {"tag": tag} if name == "ViT-B-32" else {}
    by_tag = teachers.build(settings(name, tag), "cpu")
    by_file = teachers.build(settings(name, path, **named), "cpu")

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    expected = transform(image)[None]
    with torch.no_grad():
        embedded = theirs.eval().encode_image(expected, normalize=True)
    for teacher in (by_tag, by_file):
        view = cut(image, whole_box(*image.size), teacher.image_size, teacher.preprocessing.interpolation)
        pixels = torch.from_numpy(view)[None]
        torch.testing.assert_close(teacher.pixels(pixels), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(teacher.embed_images(pixels), embedded, atol=1e-5, rtol=1e-3)
    assert by_tag.preprocessing == by_file.preprocessing
    assert by_tag.weights_digest == by_file.weights_digest

    at_other = teachers.build(settings(name, path, other, **named), "cpu")
    blank = torch.zeros(1, 3, other, other, dtype=torch.uint8)
    assert at_other.image_size == other and torch.isfinite(at_other.embed_images(blank)).all()
    section = {"model": name, "pretrained": str(path), "image_size": other, **named}
    backbone = backbones.build(parse_student({"kind": "open_clip", "open_clip": section}), "cpu")
    assert backbone.preprocessing == by_tag.preprocessing and backbone.square.size == other
    assert torch.isfinite(backbone(blank)).all() and min(backbone.grid) > 1
    path.unlink()
