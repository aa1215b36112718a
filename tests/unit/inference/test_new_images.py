"""`cutsew predict` on images that no manifest lists: what is found, skipped, written and refused."""

import csv
import json
import os
import subprocess
import sys

import fsspec
import numpy as np
import pytest
import torch
from packed_images import pack_huggingface, pack_tars
from PIL import Image
from test_export import NAMES, make_student

from cutsew.errors import UserError
from cutsew.inference.classifier import Classifier
from cutsew.inference.new_images import PredictOptions, find_images, load_batches, predict
from cutsew.inference.prediction_files import format_of, open_prediction_writer
from cutsew.method.crops import Square
from cutsew.method.score import sigmoid
from cutsew.storage.result_tables import Thresholds

SIZE = 8


def brightness(images):
    """Logits that tell an image's brightness: -2 for black, 2 for white, and the other way round."""
    level = images.float().mean(dim=(1, 2, 3)) / 255 * 4 - 2
    return torch.stack([level, -level], dim=1)


THRESHOLDS = Thresholds("count", {"fixed": [0.5] * 2, "count": [0.8, 0.2]})
STUDENT = Classifier(brightness, ["light", "dark"], Square(SIZE, "bicubic"), THRESHOLDS)
LEVELS = {"b.png": 255, "sub/a.png": 128, "sub/deeper/C.PNG": 0}


@pytest.fixture
def images(tmp_path):
    """Write three images, a damaged one, one that is another kind of file, and hidden ones."""
    root = tmp_path / "images"
    for name, level in LEVELS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (level,) * 3).save(root / name)
    (root / "sub" / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    (root / "empty.jpg").touch()
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes((root / "b.png").read_bytes())
    (root / ".thumbs").mkdir()
    (root / ".thumbs" / "a.png").write_bytes((root / "b.png").read_bytes())
    return root


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_is_walked_and_what_is_no_image_is_told_of(images, tmp_path, caplog):
    caplog.set_level("INFO")
    assert predict(images, STUDENT, tmp_path / "out.csv", PredictOptions()) == 3
    rows = rows_of(tmp_path / "out.csv")
    assert [row["image"] for row in rows] == sorted(LEVELS)
    for row in rows:
        expected = sigmoid(np.array(LEVELS[row["image"]] / 255 * 4 - 2))
        assert float(row["light"]) == pytest.approx(expected, abs=1e-5)
        assert float(row["dark"]) == pytest.approx(1 - expected, abs=1e-5)
    # sigmoid(2) = 0.88 is above 0.8 and 0.12 below 0.2; a grey image, 0.5, is dark by the student's own thresholds.
    assert [row["labels"] for row in rows] == ["light", "dark", "dark"]
    assert caplog.messages[:2] == ["skipped empty.jpg: empty file", "skipped sub/bad.jpg: truncated or damaged"]
    assert caplog.messages[2] == (
        "3 images classified; skipped: 2 that cannot be read, 1 of another kind (.txt 1), 1 hidden, "
        "1 folder not searched (.thumbs)"
    )


@pytest.mark.parametrize(
    ("how", "labels"),
    [
        (PredictOptions(rule="fixed"), ["light", "light;dark", "dark"]),
        (PredictOptions(threshold=0.6), ["light", "", "dark"]),
        (PredictOptions(threshold=0), ["light;dark"] * 3),
        (PredictOptions(threshold=1), [""] * 3),
    ],
)
def test_thresholds_can_be_chosen(images, tmp_path, how, labels):
    Image.new("RGB", (8, 8), (127, 128, 127)).save(images / "sub" / "a.png")  # mean 127.33, so 0.4993 and 0.5007
    if how.rule:
        labels = ["light", "dark", "dark"]
    predict(images, STUDENT, tmp_path / "out.csv", how)
    assert [row["labels"] for row in rows_of(tmp_path / "out.csv")] == labels


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (2, 2), (64, 1)])
def test_batches_and_workers_change_nothing(images, tmp_path, batch_size, workers):
    for name, how in (("a", PredictOptions()), ("b", PredictOptions(batch_size=batch_size, workers=workers))):
        predict(images, STUDENT, tmp_path / f"{name}.csv", how)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_formats_say_the_same(images, tmp_path, capsys):
    for name in ("a.csv", "a.json", "a.jsonl"):
        predict(images, STUDENT, tmp_path / name, PredictOptions())
    wide = rows_of(tmp_path / "a.csv")
    array = json.loads((tmp_path / "a.json").read_text())
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == array
    for row, item in zip(wide, array, strict=True):
        assert row["image"] == item["image"] and row["labels"] == ";".join(item["labels"])
        assert {name: float(row[name]) for name in STUDENT.classes} == item["probabilities"]
    predict(images, STUDENT, tmp_path / "long.csv", PredictOptions(long=True))
    long = rows_of(tmp_path / "long.csv")
    assert [(r["image"], r["class"], float(r["probability"])) for r in long] == [
        (item["image"], name, item["probabilities"][name]) for item in array for name in STUDENT.classes
    ]
    assert [r["class"] for r in long if r["named"] == "1"] == [name for item in array for name in item["labels"]]
    predict(images, STUDENT, "-", PredictOptions())
    assert capsys.readouterr().out == (tmp_path / "a.csv").read_text()


def test_one_image(images, tmp_path):
    predict(images / "b.png", STUDENT, tmp_path / "one.jsonl", PredictOptions())
    (line,) = (tmp_path / "one.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == str(images / "b.png")


def test_bad_input_is_one_line_and_writes_nothing(images, tmp_path):
    out = tmp_path / "out.csv"
    (tmp_path / "none").mkdir()
    for where, message in (
        (tmp_path / "missing", "missing: no such file or folder"),
        (tmp_path / "none", r"none: has no images \(\.jfif"),
        (images / "empty.jpg", r"empty\.jpg: none of the 1 images can be read"),
    ):
        with pytest.raises(UserError, match=message):
            predict(where, STUDENT, out, PredictOptions())
    for name, how, message in (
        ("out.txt", PredictOptions(), r"out\.txt: not a \.csv, \.json or \.jsonl file"),
        ("out.json", PredictOptions(long=True), "--long: applies only to CSV, not to json"),
        ("out.csv", PredictOptions(threshold=0.5, rule="fixed"), "--threshold: takes the place of --rule"),
        ("out.csv", PredictOptions(rule="labels"), "--rule: this model has no thresholds labels; it has fixed, count"),
    ):
        with pytest.raises(UserError, match=message):
            predict(images, STUDENT, tmp_path / name, how)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "none"]


@pytest.mark.parametrize("name", ["labels", "image", "a;b"])
def test_class_names_that_a_wide_table_cannot_hold(tmp_path, name):
    with pytest.raises(UserError, match="is not allowed in this table; write .jsonl, or add --long"):
        format_of(tmp_path / "a.csv", None, ["cat", name], long=False)
    assert format_of(tmp_path / "a.csv", None, ["cat", name], long=True) == "csv"
    assert format_of(tmp_path / "a.JSON", None, ["cat", name], long=False) == "json"


def test_a_place_that_no_file_can_have_is_refused_before_any_image_is_read(tmp_path):
    tmp_path.joinpath("folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder\.csv: is a folder where a file is needed; move it away"):
        format_of(tmp_path / "folder.csv", None, ["cat"], long=False)
    tmp_path.joinpath("file").touch()
    with pytest.raises(UserError, match=r"/file: is a file where a folder is needed; move it away"):
        format_of(tmp_path / "file" / "a.csv", None, ["cat"], long=False)


def test_rows_are_written_as_they_come_and_moved_at_the_end(tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("before")
    with pytest.raises(KeyboardInterrupt), open_prediction_writer(out, "csv", ["a"], long=False) as write:
        for i in range(10_000):
            write(f"{i}.jpg", np.array([0.5]), np.array([True]))
        (draft,) = tmp_path.glob(".out.csv.*")
        assert draft.stat().st_size > 100_000
        assert out.read_text() == "before"
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"] and out.read_text() == "before"


def test_images_are_read_only_when_they_are_needed(images):
    """A thousand images of which two batches are looked at: the rest is not opened."""
    result = find_images(images)
    many = result.paths[:1] * 4 + ["/no/such/image.jpg"] * 1000
    batches = load_batches(many, Square(SIZE, "bicubic"), 2, 0)
    assert [next(batches).pixels.shape for _ in range(2)] == [(2, 3, SIZE, SIZE)] * 2
    assert next(batches).failures == ["no such file"] * 2


WITHOUT = "import sys; sys.modules['snakemake'] = None; from cutsew.cli import main; sys.argv[0] = 'cutsew'; main()"


def call(*words, cwd):
    command = [sys.executable, "-c", WITHOUT, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


def test_export_and_predict_where_snakemake_cannot_be_imported(images, tmp_path):
    pytest.importorskip("onnxscript")
    make_student(tmp_path, "open_clip", "cutsew-tiny", "demo", 96)
    done = call("export", ".", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tables = {}
    for model in (".", "out/model.onnx"):
        done = call("predict", "images", model, "found.csv", cwd=tmp_path)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert "3 images classified; skipped: 2 that cannot be read" in done.stderr
        tables[model] = rows_of(tmp_path / "found.csv")
        assert [row["image"] for row in tables[model]] == sorted(LEVELS)
    for row, other in zip(*tables.values(), strict=True):
        assert [float(row[c]) for c in NAMES] == pytest.approx([float(other[c]) for c in NAMES], abs=1e-4)
    done = call("predict", "images", "nowhere", "a.csv", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "nowhere: no such model" in done.stderr
    assert not (tmp_path / "a.csv").exists()


def test_a_reader_that_stops_early_ends_it_quietly(images, tmp_path):
    make_student(tmp_path, "open_clip", "cutsew-tiny", "demo", 96)
    command = f"{sys.executable} -m cutsew predict images . - --batch-size 1 2> errors.txt | true"
    subprocess.run(command, shell=True, cwd=tmp_path, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert "Traceback" not in (tmp_path / "errors.txt").read_text()


@pytest.mark.parametrize("kind", ["tar", "pattern", "parquet", "URL of a folder", "URL of a tar"])
def test_predict_reads_what_the_workflow_reads(images, tmp_path, kind, caplog):
    """A tar, tars by a pattern, a Parquet file and URLs give the rows of the folder; bad images are named."""
    caplog.set_level("INFO")
    predict(images, STUDENT, tmp_path / "folder.csv", PredictOptions())
    caplog.clear()
    for hidden in (".hidden.png", ".thumbs/a.png", "notes.txt"):
        (images / hidden).unlink()
    packed = tmp_path / "packed"
    if kind == "parquet":
        pack_huggingface(images, packed / "a.parquet")
        place = packed / "a.parquet"
    else:
        pack_tars(images, packed, 1 if kind == "tar" else 2)
        place = packed / ("photos-000000.tar" if kind == "tar" else "photos-{000000..000001}.tar")
    if kind.startswith("URL"):
        system, url = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
        for path in [*images.rglob("*.*"), *packed.rglob("*.tar")]:
            if path.is_file():
                system.pipe_file(f"/{tmp_path.name}/{path.relative_to(tmp_path)}", path.read_bytes())
        place = f"{url}/images" if kind == "URL of a folder" else f"{url}/packed/photos-*.tar"
    assert predict(place, STUDENT, tmp_path / "out.csv", PredictOptions(workers=2)) == 3
    assert rows_of(tmp_path / "out.csv") == rows_of(tmp_path / "folder.csv")
    assert caplog.messages[-3:-1] == ["skipped sub/bad.jpg: truncated or damaged", caplog.messages[-2]]
    assert "skipped empty.jpg: empty file" in caplog.messages


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("https://me:hush@host/photos", "IMAGES: is a URL with a password or token"),
        ("memory://nothing/here", "has no images|does not exist"),
        ("no-such-{0..3}.tar", r"IMAGES: no-such-0\.tar does not exist"),
    ],
)
def test_places_that_predict_refuses(tmp_path, monkeypatch, place, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=line) as error:
        predict(place, STUDENT, tmp_path / "out.csv", PredictOptions())
    assert "hush" not in str(error.value) and not (tmp_path / "out.csv").exists()
