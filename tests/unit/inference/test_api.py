"""The public Python interface: what it returns is what the command line writes, whatever form the images come in."""

import subprocess
import sys
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
import xarray
import yaml
from audited_run import make_base, make_corrections
from PIL import Image
from sewing_world import CLASSES
from test_export import NAMES, make_student, views

import cutsew
from cutsew import api
from cutsew.inference import classifier
from cutsew.inference.new_images import PredictOptions, predict
from cutsew.method.crops import Square
from cutsew.storage.result_tables import Thresholds

SIZE = 8


def brightness(images):
    """Logits from an image's top-left and bottom-right pixel, so that a turned image has others."""
    return torch.stack([images[:, :, 0, 0].float().mean(1), images[:, :, -1, -1].float().mean(1)], 1) / 64 - 2


@pytest.fixture
def student():
    thresholds = Thresholds("count", {"fixed": [0.5] * 2, "count": [0.8, 0.2]})
    loaded = classifier.Classifier(brightness, ["first", "last"], Square(SIZE, "bilinear"), thresholds)
    return api.Classifier(loaded.classes, pd.Series([0.8, 0.2], loaded.classes), loaded)


@pytest.fixture
def picture(tmp_path):
    """A gradient that is black at the top left; stored turned by 90 degrees, with the EXIF tag that says so."""
    rows = np.linspace(0, 255, 16).astype(np.uint8)
    upright = np.repeat(np.broadcast_to(rows[:, None], (16, 12))[..., None], 3, axis=2)
    turned, exif = Image.fromarray(np.rot90(upright).copy()), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    return upright, tmp_path / "turned.png"


def test_importing_the_package_loads_nothing_heavy():
    code = "import cutsew, sys; dir(cutsew); assert not {'torch', 'pandas', 'numpy', 'zarr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_no_other():
    assert {name for name in cutsew.__all__ if getattr(cutsew, name) is not None} == set(cutsew.__all__)
    assert set(cutsew.__all__) <= set(dir(cutsew))
    with pytest.raises(AttributeError, match="no attribute 'load_teacher'"):
        cutsew.load_teacher  # noqa: B018


def test_paths_pil_images_and_arrays_give_the_same(student, picture):
    upright, path = picture
    with Image.open(path) as opened:
        table = student.predict_proba([path, str(path), opened, upright, upright[..., 0]], batch_size=2)
    assert list(table.index) == [str(path), str(path), 2, 3, 4]
    assert list(table.columns) == ["first", "last"]
    assert np.ptp(table.to_numpy(), axis=0).max() == 0
    assert table["first"].iloc[0] < 0.2 and table["last"].iloc[0] > 0.8


def test_one_image_needs_no_list_and_a_folder_is_searched(student, picture):
    _, path = picture
    (path.parent / "deeper").mkdir()
    path.rename(path.parent / "deeper" / "a.png")
    by_folder = student.predict_proba(path.parent)
    assert list(by_folder.index) == [str(path.parent / "deeper" / "a.png")]
    assert by_folder.equals(student.predict_proba(path.parent / "deeper" / "a.png"))
    assert student.predict_proba([]).shape == (0, 2)


def test_a_tar_is_searched_too(student, picture, tmp_path):
    _, path = picture
    with tarfile.open(tmp_path / "photos.tar", "w") as packed:
        packed.add(path, "a/turned.png")
    (name,) = student.predict_proba(str(tmp_path / "photos.tar")).index
    assert "turned.png" in name
    by_path = student.predict_proba(path).to_numpy()
    assert np.array_equal(student.predict_proba(tmp_path / "photos.tar").to_numpy(), by_path)


def test_labels_follow_the_thresholds(student):
    gray = np.full((4, 4, 3), 160, np.uint8)  # probability 0.62 of both
    assert student.predict(gray).tolist() == [["last"]]
    assert student.predict(gray, rule="fixed").tolist() == [["first", "last"]]
    assert student.predict(gray, threshold=0.9).tolist() == [[]]
    with pytest.raises(cutsew.UserError, match="no thresholds mixture; it has fixed, count"):
        student.predict(gray, rule="mixture")
    with pytest.raises(cutsew.UserError, match="leave one of them out"):
        student.predict(gray, rule="fixed", threshold=0.9)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4, 3)), r"shape \(4, 4, 3\) and dtype float64; give uint8"),
        (np.zeros((3, 4, 4), np.uint8), "give uint8 of shape"),
        (np.zeros((0, 4, 3), np.uint8), "give uint8 of shape"),
        ("nowhere.jpg", "nowhere.jpg: no such file"),
    ],
)
def test_bad_images_are_refused_in_one_line(student, bad, message):
    with pytest.raises(cutsew.UserError, match=message) as caught:
        student.predict_proba([bad])
    assert "\n" not in str(caught.value)


def test_a_truncated_pil_image_is_refused(student, tmp_path):
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    with Image.open(tmp_path / "half.png") as half, pytest.raises(cutsew.UserError, match="cannot be decoded"):
        student.predict_proba(half)


def test_a_loaded_student_predicts_what_the_command_writes(tmp_path):
    make_student(tmp_path, "open_clip", "cutsew-tiny", "demo", 96)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, view in enumerate(views(3, 100)):
        Image.fromarray(view.permute(1, 2, 0).numpy()).save(photos / f"{i}.png")
    loaded = cutsew.load_student(tmp_path, device="cpu")
    assert loaded.classes == NAMES and loaded.thresholds.tolist() == [0.5] * 3
    predict(photos, classifier.open_classifier(tmp_path, "cpu"), tmp_path / "out.csv", PredictOptions())
    written = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    np.testing.assert_allclose(loaded.predict_proba(photos), written[NAMES], atol=1e-5)
    assert [";".join(labels) for labels in loaded.predict(photos)] == written["labels"].tolist()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("api"))


def test_a_run_opens_as_labeled_tables(base):
    run = cutsew.open_run(base)
    assert run.classes == CLASSES and len(run.images) == 14 and "14 images" in repr(run)
    assert run.stages["train"][0] == "zero_shot" and run.stages["test"][-1] == "student"
    assert set(run.metrics["stage"]) >= {"zero_shot", "fused", "student"}
    fused = run.open("fused.zarr")
    expected = xarray.open_zarr(base / "fused.zarr", consolidated=False)["z"].sel(image="i00").to_numpy()
    assert np.array_equal(fused["z"].sel(image="i00"), expected)
    p = run.probabilities("fused", "train")
    np.testing.assert_allclose(p.sel(image="i00"), 1 / (1 + np.exp(-expected.astype(np.float64))))
    assert p.dims == ("image", "class") and list(p["class"].values) == CLASSES
    labels = run.labels("fused", "train")
    assert labels.index.tolist() == p["image"].values.tolist()
    assert np.array_equal(labels.to_numpy(), p.to_numpy() >= 0.5)


def test_labels_are_the_last_stages_with_corrections(base):
    plain = cutsew.open_run(base).labels()
    assert len(plain) == 14
    value = not plain.loc["i00", "bee"]
    make_corrections(base, f"i00,bee,{int(value)},Ada,")
    run = cutsew.open_run(base)
    assert run.labels().loc["i00", "bee"] == value
    assert run.labels(corrected=False).equals(plain)


def test_what_a_run_lacks_is_refused_in_one_line(base, tmp_path):
    run = cutsew.open_run(base)
    for call, message in [
        (lambda: run.labels("fuse"), "fuse is not a stage of default; did you mean fused"),
        (lambda: run.probabilities("refined", "test"), "no labels of refined for test images"),
        (lambda: run.open("tiles.zarr"), "no such Zarr"),
        (lambda: run.open("images.parquet"), "no such Zarr"),
        (lambda: cutsew.open_run(tmp_path / "none"), "no such folder"),
        (lambda: cutsew.load_student(tmp_path / "none"), "no such model"),
    ]:
        with pytest.raises(cutsew.UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_run_of_a_folder_calls_snakemake_with_its_config(tmp_path, monkeypatch):
    calls = []
    monkeypatch.chdir(tmp_path)

    def write(photos, classes, configfile, *, offline):  # without a look at the folder
        content = {"classes": classes, "dataset": {"name": "pets", "kind": "folder", "root": str(photos)}}
        configfile.write_text(yaml.safe_dump(content))

    def run(words, check):
        calls.append(words)
        return subprocess.CompletedProcess(words, 1 if len(calls) == 1 else 0)

    monkeypatch.setattr("cutsew.commands.init.write_config", write)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(cutsew.UserError, match="config.yaml: the workflow ended with exit status 1"):
        cutsew.run_folder("photos", ["cat", "dog, or so"], cores=2)
    with pytest.raises(cutsew.UserError, match="results/pets/default: no such folder"):  # where it looks for results
        cutsew.run_folder("photos", ["cat", "dog, or so"])
    assert calls[0][:6] == [sys.executable, "-P", "-m", "snakemake", "--cores", "2"]
    assert calls[0][-2:] == ["--configfile", "config.yaml"] and calls[1][5] == "all"
    with pytest.raises(cutsew.UserError, match=r"config.yaml: exists with other classes \(with dog, or so\)"):
        cutsew.run_folder("photos", ["cat"])
    assert len(calls) == 2
