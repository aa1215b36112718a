"""The report's photos: every value held against the run that they show."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_run import write_report, write_thresholds
from synthetic_run import CLASSES

from cutsew.audit.review_queue import NearDuplicates
from cutsew.method.review import chain
from cutsew.method.score import sigmoid
from cutsew.reporting import photos as module
from cutsew.storage.manifest import read_manifest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.tables import read_record
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read


def photos_of(page):
    text = page.read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)[1])
    small = dict(re.findall(r'<template id="t(\d+)">(.*?)</template>', text))
    return data["photos"], [small[str(i)] for i in range(len(small))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "tiny" / "default"
    write_report(folder, crops=True, size=(120, 90))
    return folder


def test_every_image_is_there_with_its_last_labels(folder):
    shown = photos_of(folder / "report.html")[0]["list"]
    images = read_manifest(folder / "images.parquet").set_index("id")
    truth = pd.read_parquet(folder / "truth.parquet").set_index("id")
    fused = open_group(folder / "fused.zarr")
    winners = dict(zip(labels_of(fused, "image"), read(array_of(fused, "winner")), strict=True))
    boxes = read(array_of(open_group(folder / "views.zarr"), "boxes"))
    assert [photo[0] for photo in shown] == images.index.tolist()
    for row, (name, held, width, height, _, labels) in enumerate(shown):
        last = ("student", "scores") if held else ("refined", "refined")
        assert held == int(images.loc[name, "split"] == "test") and (width, height) == (120, 90)
        p = sigmoid(StagePredictions(last[0], folder / f"{last[1]}.zarr").read([name]))[0]
        listed = [c for c in range(3) if p[c] >= 0.05 or truth.loc[name, CLASSES[c]] == 1]
        assert sorted(label[0] for label in labels) == listed
        for c, percent, named, true, box, decided in labels:
            assert percent == decided == round(100 * float(p[c])) and named == int(p[c] >= 0.5)
            assert true == truth.loc[name, CLASSES[c]]
            won = winners[name][c]
            left, top, right, bottom = boxes[won, row, :4] if won >= 0 else (0,) * 4
            assert box == ([round(float(x)) for x in (left, top, right - left, bottom - top)] if won >= 0 else [])
        assert [label[2] for label in labels] == sorted((label[2] for label in labels), reverse=True)


def test_thumbnails_are_the_images(folder):
    images = read_manifest(folder / "images.parquet")
    for source, path in zip(photos_of(folder / "report.html")[1], images["path"], strict=True):
        small = Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2])))
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB").resize(small.size), float)
        assert small.size == (120, 90) and np.abs(np.asarray(small.convert("RGB"), float) - expected).mean() < 12


def test_the_queue_is_marked_and_recorded(folder):
    ranks = {photo[0]: photo[4] for photo in photos_of(folder / "report.html")[0]["list"] if photo[4]}
    queue = read_record(folder / "report.json", "facts", "next")
    assert len(queue) == 5 and ranks == {name: rank for rank, name in enumerate(queue, start=1)}


def test_classes_that_few_held_out_images_have_are_named(folder):
    truth, images = (pd.read_parquet(folder / f"{name}.parquet").set_index("id") for name in ("truth", "images"))
    counts = [int((truth.loc[images.index[images["split"] == "test"], name] == 1).sum()) for name in CLASSES]
    few = {str(c): count for c, count in enumerate(counts) if count < 5}
    assert few and photos_of(folder / "report.html")[0]["few"] == few
    text = (folder / "report.html").read_text()
    for c, name in enumerate(CLASSES):
        assert (re.search(rf">{name} \(\d+\), {counts[c]} held out<", text) is not None) == (str(c) in few)


def test_of_many_images_the_queue_and_a_sample_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_PHOTOS", 8)
    monkeypatch.setattr("cutsew.stages.report.QUEUE", 5)
    monkeypatch.setattr(module, "AT_ONCE", 3)
    folder = tmp_path / "tiny" / "default"
    page = write_report(folder)
    shown = [photo[0] for photo in photos_of(page)[0]["list"]]
    queue = read_record(folder / "report.json", "facts", "next")
    images = read_manifest(folder / "images.parquet")
    others = images[~images["id"].isin(queue)].sort_values("digest")["id"].tolist()
    assert len(queue) == 5 and set(shown) == {*queue, *others[:3]}
    assert "8 of 20 images: those to check next" in " ".join(page.read_text().split())


def test_images_that_cannot_be_read_have_no_thumbnail(tmp_path):
    page = write_report(tmp_path / "tiny" / "default", images=False)
    photos, small = photos_of(page)
    assert len(photos["list"]) == 20 and set(small) == {""}


def test_a_large_photo_takes_few_bytes(tmp_path):
    path = tmp_path / "large.jpg"
    Image.effect_noise((1200, 900), 40).convert("RGB").save(path)
    side = module.SIDES[-1][1]
    # 5,000 of the noisiest photos stay near the aim of 15 MB a page; real ones are a third of that
    assert len(module._encoded(module.thumbnail(path, side))) < 3 * 15e6 / 5000


def test_held_out_copies_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "cutsew.stages.report.near_duplicates",
        lambda run: NearDuplicates([("image-012", "image-003"), ("image-013", "image-001")], 8),
    )
    page = write_report(tmp_path / "tiny" / "default")
    text = " ".join(page.read_text().split())
    assert "2 held-out images are nearly the same as a training image (image-012 and image-003)." in text
    assert read_record(page.with_suffix(".json"), "facts", "copies")[1] == ["image-013", "image-001"]


def test_similar_photos_can_stand_together(folder):
    photos = photos_of(folder / "report.html")[0]
    ids = [photo[0] for photo in photos["list"]]
    p = sigmoid(StagePredictions("zero_shot", folder / "logits.zarr").read(ids))  # no embeddings are stored
    order = chain(p.astype(np.float32)).tolist()
    assert [order.index(row) for row in range(len(ids))] == photos["similar"]
    assert '<option value="similar">' in (folder / "report.html").read_text()


def test_uncertain_is_near_the_decision_threshold(tmp_path):
    page = write_report(
        tmp_path / "tiny" / "default",
        more=lambda folder: {"thresholds": write_thresholds(folder / "thresholds.csv", CLASSES)},
    )
    for _, held, *_, labels in photos_of(page)[0]["list"]:
        threshold = 0.25 if held else 0.375  # as written: of student and refined
        for _, percent, named, _, _, decided in labels:
            odds = percent / max(100 - percent, 0.5) * (1 - threshold) / threshold
            assert decided == pytest.approx(100 * odds / (1 + odds), abs=3)
            assert (decided > 50) <= named <= (decided >= 50)
