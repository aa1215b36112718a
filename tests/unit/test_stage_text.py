import json
import logging

import numpy as np
import torch
import xarray
from tiny_models import checkpoint

from cutsew import teachers
from cutsew.config.teacher import Teacher
from cutsew.stages.text import text


def settings(path, classes, templates=("a photo of a {class}", "the {class}"), names=None):
    section = {"kind": "open_clip", "open_clip": {"model": "test-vit", "pretrained": str(path), "image_size": None}}
    return {"classes": classes, "prompts": {"templates": list(templates), "names": names or {}}, "teacher": section}


def test_golden(tmp_path):
    path, _ = checkpoint(tmp_path, "test-vit")
    told = settings(path, ["cat", "tvmonitor"], names={"tvmonitor": "tv monitor"})
    text(tmp_path / "text.zarr", told, device="cpu")
    found = xarray.open_zarr(tmp_path / "text.zarr", consolidated=False)
    assert found["text"].dims == ("class", "embedding")
    assert found["class"].values.tolist() == ["cat", "tvmonitor"]
    assert found["text"].dtype == np.float32
    assert found.attrs["texts"] == [["a photo of a cat", "the cat"], ["a photo of a tv monitor", "the tv monitor"]]

    teacher = teachers.build(Teacher.model_validate(told["teacher"]), "cpu")
    each = teacher.embed_texts(["a photo of a cat", "the cat"])
    expected = torch.nn.functional.normalize(each.sum(dim=0), dim=0)
    torch.testing.assert_close(torch.from_numpy(found["text"].values[0]), expected)
    assert found.attrs["weights"] == teacher.weights_digest
    assert found.attrs["logit_scale"] == teacher.logit_scale
    record = json.loads(tmp_path.joinpath("text.json").read_text())
    assert record["facts"]["weights"] == teacher.weights_digest


def test_classes_that_coincide(tmp_path, caplog):
    path, _ = checkpoint(tmp_path, "test-vit")
    with caplog.at_level(logging.WARNING):
        text(tmp_path / "text.zarr", settings(path, ["cat", "dog", "Cat"]), device="cpu")
    assert [record.getMessage() for record in caplog.records if record.name == "cutsew.stages.text"] == [
        "classes: the teacher cannot tell cat from Cat (1 such pairs); reword them in prompts.names"
    ]
