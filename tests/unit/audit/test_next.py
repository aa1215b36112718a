"""cutsew next: what it lists, and that no true label is read."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from synthetic_run import CLASSES, SETTINGS, make_run, write_zarr
from typer.testing import CliRunner

from cutsew.audit import review_queue
from cutsew.audit.review_queue import Reviewed, near_duplicates, queue
from cutsew.audit.run import Run
from cutsew.commands.next import next as command
from cutsew.errors import UserError
from cutsew.method.score import sigmoid
from cutsew.provenance.record import Record
from cutsew.stages.corrections import corrections
from cutsew.stages.evaluate import evaluate
from cutsew.storage import predictions
from cutsew.storage.manifest import read_manifest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.zarr_layout import ArraySpec
from cutsew.storage.zarr_writer import new_group


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(predictions, "IMAGES_AT_ONCE", 5)


def measure(folder, files, **others):
    zarrs = {name: files[name] for name in ("logits", "fused", "pseudo", "refined", "scores")}
    evaluate(files["images"], folder / "metrics.csv", settings=SETTINGS, **zarrs | others)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "results" / "tiny" / "default"
    measure(folder, make_run(folder, images=False))
    return folder


def reviewed(folder):
    return Reviewed.of(Run(folder))


def call(run, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in (run, *arguments)])


def scores_of(run, split):
    """Score by hand: labels expected to be wrong, and where whole image, fusion and last stage differ most."""
    images = read_manifest(run / "images.parquet", split=split)["id"].tolist()
    last = ("refined", "refined") if split == "train" else ("student", "scores")
    zarrs = (("zero_shot", "logits"), ("fused", "fused"), last)
    p = np.stack(
        [sigmoid(StagePredictions(stage, run / f"{zarr}.zarr").read(images).astype(float)) for stage, zarr in zarrs]
    )
    doubt = np.minimum(p[-1], 1 - p[-1]) + p.max(axis=0) - p.min(axis=0)
    return dict(zip(images, doubt.sum(axis=1), strict=True))


def test_the_highest_scores_are_listed_where_all_are_asked_for(run):
    chosen = queue(reviewed(run), 100)
    expected = scores_of(run, "train") | scores_of(run, "test")
    assert chosen["id"].tolist() == sorted(expected, key=expected.get, reverse=True)
    assert chosen["score"].tolist() == pytest.approx(sorted(expected.values(), reverse=True))
    assert chosen["rank"].tolist() == list(range(1, 21))
    assert chosen["score"].to_numpy() == pytest.approx((chosen["uncertainty"] + chosen["disagreement"]).to_numpy())


def test_of_alike_images_one_is_chosen(run):
    ids = read_manifest(run / "images.parquet")["id"].tolist()
    expected = scores_of(run, "train") | scores_of(run, "test")
    pool = sorted(expected, key=expected.get, reverse=True)[:6]
    features = np.zeros((20, 4), np.float16)
    for rank, name in enumerate(pool):
        features[ids.index(name)] = np.eye(4)[rank // 3]  # the first three alike, and the next three
    arrays = {"global": ArraySpec((20, 4), "float16", ("image", "embedding"), (20, 4))}
    boxes = {"boxes": ArraySpec((1, 20, 5), "float32", ("pass", "image", "edge"), (1, 20, 5))}
    views = run / "views.zarr"
    with new_group(views, arrays | boxes, {"image": ids, "pass": [0]}) as group:
        group["global"][...] = features
        group["boxes"][...] = np.zeros((1, 20, 5))
    Record("seal", 1, {}).write_beside(views)
    assert queue(reviewed(run), 2)["id"].tolist() == [pool[0], pool[3]]


def test_one_split_alone(run):
    chosen = queue(reviewed(run), 3, "test")
    assert set(chosen["split"]) == {"test"} and set(chosen["id"]) <= set(scores_of(run, "test")) and len(chosen) == 3


def test_the_labels_shown_are_the_last_ones_and_doubtful_is_what_stages_dispute(run):
    row = queue(reviewed(run), 1, "train").iloc[0]
    p = sigmoid(StagePredictions("refined", run / "refined.zarr").read([row["id"]]).astype(float))[0]
    assert row["labels"] == [name for name, value in zip(CLASSES, p, strict=True) if value >= 0.5]
    assert set(row["doubtful"]) <= set(CLASSES) and len(row["doubtful"]) == 3


def test_true_labels_make_no_difference(run):
    before = queue(reviewed(run), 8)
    truth = pd.read_parquet(run / "truth.parquet")
    truth[list(CLASSES)] = 1 - truth[list(CLASSES)].clip(lower=0)
    truth.to_parquet(run / "truth.parquet")
    pd.testing.assert_frame_equal(queue(reviewed(run), 8), before)
    (run / "truth.parquet").unlink()
    pd.testing.assert_frame_equal(queue(reviewed(run), 8), before)


def test_corrected_images_are_not_listed_again(run):
    first = queue(reviewed(run), 4)["id"].tolist()
    file = run.parent / "audit.csv"
    pd.DataFrame({"image": first, "class": "cat", "present": 1}).to_csv(file, index=False)
    result = {"labels": {"overrides": str(file)}, "classes": list(CLASSES), "student": {"kind": "open_clip"}}
    corrections(run / "images.parquet", file, run / "corrections.parquet", result)
    assert not set(first) & set(queue(reviewed(run), 100)["id"])


def test_images_that_nobody_scored_are_left_out(tmp_path):
    folder = tmp_path / "results" / "tiny" / "default"
    files = make_run(folder, images=False)
    ids = read_manifest(files["images"])["id"].tolist()
    z = StagePredictions("fused", files["fused"]).read(ids)
    z[-1] = np.nan
    write_zarr(folder / "fused.zarr", ids, CLASSES, z=z, winner=np.zeros(z.shape, np.int16))
    measure(folder, files)
    assert ids[-1] not in queue(reviewed(folder), 100)["id"].tolist()


def test_it_is_printed_as_text_csv_and_json(run):
    chosen = queue(reviewed(run), 4)
    lines = call(run, "-n", "4").stdout.splitlines()
    assert lines[0].split() == ["rank", "id", "split", "score", "labels", "doubtful"] and len(lines) == 5
    assert [line.split()[1] for line in lines[1:]] == chosen["id"].tolist()
    rows = list(csv.DictReader(io.StringIO(call(run, "-n", "4", "--format", "csv").stdout)))
    assert [row["id"] for row in rows] == chosen["id"].tolist()
    assert [row["doubtful"].split(";") for row in rows] == chosen["doubtful"].tolist()
    result = json.loads(call(run, "-n", "4", "--format", "json").stdout)
    assert [row["score"] for row in result] == chosen["score"].tolist()
    assert [row["labels"] for row in result] == chosen["labels"].tolist()


def test_what_is_not_there_is_refused_in_one_line(tmp_path):
    folder = tmp_path / "results" / "tiny" / "default"
    files = make_run(folder, test=0, images=False)
    zarrs = {name: files[name] for name in ("logits", "fused", "pseudo", "refined")}
    evaluate(files["images"], folder / "metrics.csv", settings=SETTINGS, **zarrs)
    error = call(folder, "--split", "test").exception
    assert isinstance(error, UserError) and str(error) == "--split: the run has no test images; leave it out"


def embedded(run, rows):
    """Store embeddings of whole images: id -> index of a unit vector."""
    ids = read_manifest(run / "images.parquet")["id"].tolist()
    features = np.zeros((len(ids), 32), np.float16)
    for place, name in enumerate(ids):
        features[place, rows.get(name, place)] = 1
    arrays = {"global": ArraySpec(features.shape, "float16", ("image", "embedding"), features.shape)}
    with new_group(run / "views.zarr", arrays, {"image": ids}) as group:
        group["global"][...] = features
    Record("seal", 1, {}).write_beside(run / "views.zarr")


def test_held_out_copies_of_training_images_are_found(tmp_path, monkeypatch):
    run = tmp_path / "results" / "tiny" / "default"
    measure(run, make_run(run))
    images = read_manifest(run / "images.parquet").set_index("id")
    train, held = (images.index[images["split"] == split].tolist() for split in ("train", "test"))
    rng = np.random.default_rng(0)
    for path in images["path"]:
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80, 60)).save(path)
    with Image.open(images["path"][train[2]]) as image:
        image.resize((200, 150)).save(images["path"][held[1]])
    embedded(run, {held[1]: 2, held[4]: 3})  # one is a copy; the other's embedding alone equals that of another image
    found = near_duplicates(reviewed(run))
    assert found.pairs == [(held[1], train[2])] and found.compared == len(held)
    monkeypatch.setattr(review_queue, "PAIRS", len(held) * len(train) // 3)
    assert near_duplicates(reviewed(run)).compared == 3  # of 8, every third


def test_without_embeddings_no_copies_are_looked_for(run):
    assert near_duplicates(reviewed(run)) == ([], 0)
