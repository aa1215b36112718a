import json
import logging

import numpy as np
import pytest
import torch
import xarray
from tiny_models import checkpoint

from cutsew.config.networks import parse_teacher
from cutsew.errors import UserError
from cutsew.method.prompts import average
from cutsew.method.score import score
from cutsew.models import teachers
from cutsew.stages.text import text
from cutsew.storage.text_embeddings import read_texts
from cutsew.storage.zarr_layout import Answers


def settings(path, classes, templates=("a photo of a {class}", "the {class}"), names=None):
    section = {"kind": "open_clip", "open_clip": {"model": "test-vit", "pretrained": str(path), "image_size": None}}
    return {"classes": classes, "prompts": {"templates": list(templates), "names": names or {}}, "teacher": section}


def test_golden(tmp_path):
    path, _ = checkpoint(tmp_path, "test-vit")
    reported = settings(path, ["cat", "tvmonitor"], names={"tvmonitor": "tv monitor"})
    text(tmp_path / "text.zarr", reported, device="cpu")
    result = xarray.open_zarr(tmp_path / "text.zarr", consolidated=False)
    assert result["text"].dims == ("class", "embedding")
    assert result["class"].values.tolist() == ["cat", "tvmonitor"]
    assert result["text"].dtype == np.float32
    assert result.attrs["texts"] == [["a photo of a cat", "the cat"], ["a photo of a tv monitor", "the tv monitor"]]

    teacher = teachers.build(parse_teacher(reported["teacher"]), "cpu")
    each = teacher.embed_texts(["a photo of a cat", "the cat"])
    expected = torch.nn.functional.normalize(each.sum(dim=0), dim=0)
    torch.testing.assert_close(torch.from_numpy(result["text"].values[0]), expected)
    assert result.attrs["weights"] == teacher.weights_digest
    assert result.attrs["logit_scale"] == teacher.logit_scale
    record = json.loads(tmp_path.joinpath("text.json").read_text())
    assert record["facts"]["weights"] == teacher.weights_digest


def test_classes_that_coincide(tmp_path, caplog):
    path, _ = checkpoint(tmp_path, "test-vit")
    with caplog.at_level(logging.WARNING):
        text(tmp_path / "text.zarr", settings(path, ["cat", "dog", "Cat"]), device="cpu")
    assert [record.getMessage() for record in caplog.records if record.name == "cutsew.stages.text"] == [
        "classes: the teacher cannot distinguish cat from Cat (1 such pairs); reword them in prompts.names"
    ]


def stored(tmp_path, told):
    text(tmp_path / "text.zarr", told, device="cpu")
    return xarray.open_zarr(tmp_path / "text.zarr", consolidated=False), read_texts(tmp_path / "text.zarr")


def test_golden_wordings_and_background(tmp_path):
    """Averaged over wordings and templates; the best wording is kept apart; the background stands beside."""
    path, _ = checkpoint(tmp_path, "test-vit")
    reported = settings(path, ["dog", "crane"], names={"crane": ["crane bird", "heron"]})
    reported["prompts"]["background"] = ["sky", "Dog", "heron"]
    teacher = teachers.build(parse_teacher(reported["teacher"]), "cpu")
    each = teacher.embed_texts(
        [t.replace("{class}", w) for w in ("crane bird", "heron") for t in reported["prompts"]["templates"]]
    )
    dog, sky = (
        average(teacher.embed_texts([f"a photo of a {w}", f"the {w}"])[None])[0].numpy() for w in ("dog", "sky")
    )
    crane = average(each[None])[0].numpy()

    result, texts = stored(tmp_path, reported)
    assert set(result.data_vars) == {"background", "text"} and result["word"].values.tolist() == ["sky"]
    np.testing.assert_allclose(texts.classes, [dog, crane], atol=1e-6)
    np.testing.assert_allclose(texts.background, [sky], atol=1e-6)
    assert texts.sizes is None and texts.answers == Answers("softmax", 1)

    reported["prompts"]["wordings"] = "best"
    result, texts = stored(tmp_path, reported)
    assert result["wording"].values.tolist() == ["dog", "crane bird", "heron"] and result.attrs["wordings"] == [1, 2]
    np.testing.assert_allclose(texts.classes, [dog, crane], atol=1e-6)
    of_wording = [average(part[None])[0].numpy() for part in each.split(2)]
    np.testing.assert_allclose(texts.wordings, [dog, *of_wording], atol=1e-6)
    views = np.random.default_rng(0).normal(size=(3, 24))
    expected = score(views, texts.wordings, texts.scale, 1e-6, wordings=(1, 2), background=texts.background)
    assert np.array_equal(texts.score(views, 1e-6), expected) and expected.shape == (3, 2)


def test_golden_sigmoid(tmp_path):
    path, _ = checkpoint(tmp_path, "test-sigmoid")
    reported = settings(path, ["cat"])
    reported["teacher"]["open_clip"]["model"] = "test-sigmoid"
    result, texts = stored(tmp_path, reported)
    assert result.attrs["activation"] == "sigmoid" and result.attrs["logit_bias"] == texts.bias == -10
    views = np.random.default_rng(0).normal(size=(3, 24))
    expected = score(views, texts.classes, texts.scale, 1e-6, bias=-10.0)
    assert np.array_equal(texts.score(views, 1e-6), expected) and len(np.unique(expected)) == 3
    reported |= {"classes": ["cat", "dog"], "score": {"activation": "softmax"}}
    result, texts = stored(tmp_path, reported)
    assert result.attrs["activation"] == "softmax" and result.attrs["logit_bias"] == -10 and texts.bias is None


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("test-vit", {"classes": ["cat"]}, "^classes: one class needs something to compete with"),
        ("test-vit", {"score": {"activation": "sigmoid"}}, "^score.activation: sigmoid needs the logit bias"),
        ("test-sigmoid", {"prompts": {"background": ["sky"]}}, "^prompts.background: takes part in a softmax"),
    ],
)
def test_what_only_the_loaded_teacher_tells_is_refused(tmp_path, model, changes, message):
    """Neither model is described in open_clip's folder, so that nothing is known before it is loaded."""
    result = settings(checkpoint(tmp_path, model)[0], ["cat", "dog"]) | changes
    result["teacher"]["open_clip"]["model"] = model
    with pytest.raises(UserError, match=message):
        text(tmp_path / "text.zarr", result, device="cpu")
    assert not (tmp_path / "text.zarr").exists()


def test_wordings_that_coincide(tmp_path, caplog):
    path, _ = checkpoint(tmp_path, "test-vit")
    result = settings(path, ["crane", "bus"], names={"crane": ["crane bird", "Bus", "BUS"]})
    result["prompts"]["wordings"] = "best"
    with caplog.at_level(logging.WARNING):
        text(tmp_path / "text.zarr", result, device="cpu")
    assert [record.getMessage() for record in caplog.records if record.name == "cutsew.stages.text"] == [
        "classes: the teacher cannot distinguish crane from bus (1 such pairs); reword them in prompts.names"
    ]
