"""A teacher trained with a sigmoid and a single class, from images to report, and what reads the results."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
import workflow_run

from cutsew.config import override
from cutsew.config.networks import parse_teacher
from cutsew.models import teachers
from cutsew.storage.zarr_reader import array_of, open_group, read

pytestmark = pytest.mark.workflow

CLASS = "cat"
PLAIN = {"predict.tiles": False, "predict.ensemble": "none", "explain.kind": "none"}


@pytest.fixture(scope="module")
def finished(workflow):
    workflow.edit(
        classes=[CLASS],
        teacher__open_clip__model="cutsew-tiny-sigmoid",
        predict={"tiles": True, "ensemble": "teacher"},
        explain={"kind": "maps", "num_maps": 2},
        runs={"soft": {"fuse.rule": "soft", "targets.labels_per_image": "auto", "train.head": "linear", **PLAIN}},
    )
    workflow.run()
    return workflow


def z_of(folder, name, array="z"):
    return read(array_of(open_group(folder / f"{name}.zarr"), array))


def cutsew(workflow, *arguments):
    done = workflow_run.cutsew(workflow, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_logits_are_the_models_own(finished):
    """Zero-shot logits of the stored embeddings: scale * cosine + bias, strongly negative and all different."""
    folder = finished.results / "default"
    chosen = {"model": "cutsew-tiny-sigmoid", "pretrained": "demo", "image_size": 96}
    teacher = teachers.build(parse_teacher({"open_clip": chosen}), "cpu")
    views = torch.from_numpy(z_of(folder, "views", "global").astype(np.float32))
    cosine = torch.nn.functional.normalize(views, dim=1) @ teacher.embed_texts([f"a photo of a {CLASS}"]).T
    expected = (teacher.logit_scale * cosine + teacher.logit_bias).numpy()
    z = z_of(folder, "logits", "zero_shot")
    np.testing.assert_allclose(z, expected, atol=1e-5)
    assert z.shape == (9, 1) and z.max() < 0 and len(np.unique(z)) == 9


def test_every_stage_keeps_images_apart(finished):
    for run, name in (("default", "fused"), ("default", "pseudo"), ("soft", "fused"), ("soft", "targets")):
        z = z_of(finished.results / run, name)
        assert np.isfinite(z).all() and len(np.unique(z)) == 9, (run, name)


def test_every_table_and_tool_takes_one_class(finished):
    folder = finished.results / "default"
    metrics = pd.read_csv(folder / "metrics.csv").set_index(["split", "stage"])
    assert metrics.loc["test"].index.tolist() == ["zero_shot", "fused", "student", "tiles", "ensemble"]
    assert metrics["mAP"].between(0, 100).all()
    assert "is the only class" not in " ".join(metrics["remark"].fillna(""))
    page = re.sub('base64,[^"]*"', "", (folder / "report.html").read_text().partition("<script")[0])
    assert CLASS in page and not re.search(r"\bnan\b", page.lower())
    cutsew(finished, "verify", str(folder))
    cutsew(finished, "audit", str(folder))
    cutsew(finished, "audit", str(folder), "--class", CLASS)
    cutsew(finished, "audit", str(folder), "--image", "held-out/1.jpg")
    assert json.loads(cutsew(finished, "predict", "images/held-out", str(folder), "-", "--format", "json"))
    cutsew(finished, "predict", "images/held-out", str(folder), "both.csv", "--ensemble")
    cutsew(finished, "predict", "images/held-out", str(folder), "tiles.csv", "--tiles")
    cutsew(finished, "export", str(folder), "exported")
    for kind, name in (("fiftyone", "f.json"), ("coco", "c.json"), ("cleanlab", "l.npz")):
        cutsew(finished, "labels", str(folder), name, "--format", kind)
    cutsew(finished, "predict", "images/held-out", "exported/model.onnx", "onnx.csv")


def test_an_edit_of_the_activation_encodes_nothing(finished):
    finished.edit(score={"activation": "softmax"}, prompts={"background": ["sky", "wall"]}, runs={})
    finished.edit(predict={"tiles": False, "ensemble": "none"})
    finished.settings = override(finished.settings, {"student.kind": "none"})
    jobs = finished.run()
    assert {"text", "score", "fuse"} <= set(jobs) and not {"encode", "encode_images", "seal"} & set(jobs)
    folder = finished.results / "default"
    p = 1 / (1 + np.exp(-z_of(folder, "logits", "zero_shot").astype(float)))
    assert (p < 1).all() and open_group(folder / "text.zarr")["word"][:].tolist() == ["sky", "wall"]
    finished.edit(prompts={"background": ["sky", "wall", "grass"]})
    jobs = finished.run()
    assert {"text", "score", "fuse"} <= set(jobs) and not {"encode", "encode_images", "seal"} & set(jobs)
    finished.edit(prompts={"background": []})
    done = finished.snakemake()
    assert done.returncode != 0 and "cutsew: classes: one class needs something to compete with" in done.stderr
