"""Stage evaluate: golden numbers on a small run, alignment by id, runs without truth or student."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from synthetic_run import CLASSES, SETTINGS, make_run, write_zarr

from cutsew.audit.run import Slice
from cutsew.audit.summary import Tally
from cutsew.config.evaluation import EvaluateConfig
from cutsew.errors import UserError
from cutsew.method.metrics import describe_degenerate
from cutsew.method.score import sigmoid
from cutsew.pipeline.graph import STAGES
from cutsew.reporting.measures import StageMeasures
from cutsew.reporting.run_data import tally
from cutsew.reporting.selection import changes
from cutsew.stages.evaluate import evaluate
from cutsew.storage.file_digests import file_digest
from cutsew.storage.manifest import read_manifest, write_manifest
from cutsew.storage.predictions import StagePredictions, class_blocks
from cutsew.storage.result_tables import RunThresholds, StageThresholds, Thresholds, as_text, write_thresholds
from cutsew.storage.zarr_reader import labels_of, open_group


@pytest.fixture
def given(tmp_path):
    return make_run(tmp_path, images=False)


def run(given, **changes):
    options = {**given, **changes}
    metrics = given["images"].with_name("metrics.csv")
    evaluate(options.pop("images"), metrics, settings=SETTINGS, **options)
    return {path.stem: pd.read_csv(path) for path in metrics.parent.glob("*.csv") if path.name != "history.csv"}


def hand_made(tmp_path):
    """Write two train and two test images with logits whose measures are worked by hand below."""
    ids = ["a", "b", "c", "d"]
    manifest = pd.DataFrame(
        {"id": ids, "path": ids, "width": 1, "height": 1, "bytes": 1, "digest": ids, "shard": 0}
        | {"split": ["train", "test", "train", "test"]}
    )
    write_manifest(tmp_path / "images.parquet", manifest)
    labels = pd.DataFrame({"id": ["d", "b", "a"], "cat": [1, 0, 1], "dog": [0, 1, 1], "cow": [0, 0, -1]})
    labels.astype(dict.fromkeys(("cat", "dog", "cow"), np.int8)).to_parquet(tmp_path / "truth.parquet")
    classes = ["dog", "cat", "cow"]
    z = np.array([[1, -1, -2], [1, 2, -1], [-1, -1, -1], [3, 1, -1]], dtype=np.float32)
    write_zarr(tmp_path / "logits.zarr", ids, classes, chunk=3, zero_shot=z)
    write_zarr(tmp_path / "fused.zarr", ids, classes, chunk=3, z=z[:, [1, 0, 2]])
    write_zarr(tmp_path / "pseudo.zarr", ids, classes, chunk=3, z=z + 1)
    return {name: tmp_path / f"{name}.zarr" for name in ("logits", "fused", "pseudo")} | {
        "images": tmp_path / "images.parquet",
        "labels": tmp_path / "truth.parquet",
    }


def test_by_hand(tmp_path):
    tables = run(hand_made(tmp_path))
    rows = tables["metrics"].set_index(["split", "stage"])
    assert list(rows.index) == [
        ("train", "zero_shot"), ("train", "fused"), ("train", "pseudo"), ("test", "zero_shot"), ("test", "fused")
    ]  # fmt: skip
    # Test images b (dog) and d (cat). Zero-shot ranks d above b for dog and b above d for cat: precision 1/2 for both.
    # Named: dog and cat in both images: each right in one of two. Cow has no positive.
    zero_shot = rows.loc[("test", "zero_shot")]
    assert dict(zero_shot[["images", "with_truth", "mAP", "mAP_classes", "CP", "CR"]]) == {
        "images": 2, "with_truth": 2, "mAP": 50, "mAP_classes": 2, "CP": 50, "CR": 100
    }  # fmt: skip
    assert zero_shot["CF1"] == pytest.approx(200 / 3, rel=1e-5)
    assert zero_shot["inversions"] == 2
    assert zero_shot["labels_per_image"] == 2
    assert zero_shot["confidence"] == pytest.approx((1 / (1 + np.exp(-2)) + 1 / (1 + np.exp(-3))) / 2, rel=1e-5)
    # Fused swaps dog and cat, and so puts both in order.
    assert rows.loc[("test", "fused"), "mAP"] == 100
    assert rows.loc[("test", "fused"), "inversions"] == 0
    # Of the train images only a has truth: dog and cat; cow does not count there, and c not at all.
    train = rows.loc[("train", "zero_shot")]
    assert dict(train[["images", "with_truth", "mAP", "OP", "OR"]]) == {
        "images": 2, "with_truth": 1, "mAP": 100, "OP": 100, "OR": 50
    }  # fmt: skip
    assert train["labels_per_image"] == 0.5
    agreement = tables["agreement"].set_index(["split", "first", "second"])
    # Zero-shot and fused: the first class swaps in both test images, both name dog and cat, the order is (0, 1, 2)
    # against (1, 0, 2): Spearman 1 - 6 * 2 / (3 * 8) = 0.5.
    assert agreement.loc[("test", "zero_shot", "fused")].tolist() == [0, 1, 0.5]
    assert len(agreement) == 4


def test_golden(given):
    """Raise the stage's version in plan.py when these numbers change."""
    rows = run(given)["metrics"].set_index(["split", "stage"])
    assert STAGES["evaluate"].version == 6
    result = {key: tuple(rows.loc[key, ["mAP", "CF1", "OF1", "top2_CF1"]].round(3)) for key in rows.index}
    assert set(result) == set(GOLDEN)
    for key, values in GOLDEN.items():
        assert result[key] == pytest.approx(values, abs=2e-3)


GOLDEN = {
    ("train", "zero_shot"): (88.053, 12.121, 16.667, 69.623),
    ("train", "fused"): (90.747, 36.782, 42.857, 67.166),
    ("train", "pseudo"): (99.034, 85.454, 84.21, 78.324),
    ("train", "refined"): (100.0, 98.113, 97.674, 78.135),
    ("test", "zero_shot"): (84.123, 13.333, 13.333, 79.688),
    ("test", "fused"): (97.222, 35.616, 35.294, 88.315),
    ("test", "student"): (98.333, 91.892, 92.308, 87.302),
}


def test_tables(given):
    tables = run(given)
    assert list(tables["metrics"]) == [
        "stage", "split", "images", "with_truth", "mAP", "mAP_classes", "mAP_10", "mAP_10_classes",
        "CP", "CR", "CF1", "OP", "OR", "OF1", "top2_CP", "top2_CR", "top2_CF1", "top2_OP", "top2_OR", "top2_OF1",
        "inversions", "labels_per_image", "confidence", "remark",
    ]  # fmt: skip
    assert list(tables["per_class"]) == ["stage", "split", "class", "positives", "AP", "inversions", "labels"]
    assert len(tables["per_class"]) == 7 * len(CLASSES)
    histogram = tables["confidence"].groupby(["split", "stage"], sort=False)[["top1", "every"]].sum()
    assert histogram.loc[("train", "refined")].tolist() == [12, 36]
    assert histogram.loc[("test", "student")].tolist() == [8, 24]
    means = tables["per_class"].groupby(["split", "stage"])["AP"].mean()
    for row in tables["metrics"].itertuples():
        assert row.mAP == pytest.approx(means[row.split, row.stage], rel=1e-4)


def test_rows_are_aligned_by_id(given, tmp_path):
    before = run(given)
    for name, stage in (("refined", "refined"), ("scores", "student")):
        outcome = StagePredictions(stage, given[name])
        split = "train" if name == "refined" else "test"
        ids = list(read_manifest(given["images"], split=split)["id"])
        mixed = ids[1::2] + ids[::2]
        write_zarr(tmp_path / f"{name}.zarr", mixed, CLASSES, chunk=5, z=outcome.read(mixed))
    after = run(given)
    for name, table in before.items():
        pd.testing.assert_frame_equal(table, after[name])


def test_blocks_of_images_and_classes_change_no_table(given, tmp_path, monkeypatch):
    """One class and three images at a time; thresholds by all rules, three classes, 12 and 8 images."""
    z = StagePredictions("student", given["scores"]).read(read_manifest(given["images"], split="test")["id"].tolist())
    thresholds = Thresholds("count", {"fixed": [0.5] * 3, "count": [0.4, 0.6, 0.5]})
    rows = [StageThresholds.of_logits("student", thresholds, z, [0.5] * 3)]
    write_thresholds(tmp_path / "thresholds.csv", list(CLASSES), rows)
    run(given, thresholds=tmp_path / "thresholds.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    monkeypatch.setattr("cutsew.storage.predictions.BLOCK_BYTES", 1)
    monkeypatch.setattr("cutsew.storage.predictions.IMAGES_AT_ONCE", 3)
    monkeypatch.setattr("cutsew.storage.predictions.FEW", 2)
    monkeypatch.setattr("cutsew.storage.predictions.COLUMNS", 1)
    assert len(class_blocks(12, 3)) == 3
    run(given, thresholds=tmp_path / "thresholds.csv")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == before and len(before) > 5


def test_without_truth(given, capsys):
    tables = run(given, labels=None)
    assert tables["metrics"][["mAP", "CP", "OF1", "top2_OF1", "inversions"]].isna().all(axis=None)
    assert tables["metrics"][["labels_per_image", "confidence"]].notna().all(axis=None)
    assert tables["per_class"][["positives", "AP"]].isna().all(axis=None)
    lines = [line for line in capsys.readouterr().out.strip().splitlines() if not line.startswith("note: ")]
    assert len(lines) == 8
    assert lines[1].split()[:4] == ["zero_shot", "train", "12", "-"]


def test_without_student(given):
    tables = run(given, refined=None, scores=None)
    assert list(tables["metrics"]["stage"]) == ["zero_shot", "fused", "pseudo", "zero_shot", "fused"]


def test_only_training_images(tmp_path):
    tables = run(make_run(tmp_path, test=0, images=False))
    assert set(tables["metrics"]["split"]) == {"train"}


def test_record(given):
    run(given)
    record = json.loads(given["images"].with_name("metrics.json").read_text())
    assert record["settings"] == SETTINGS
    assert set(record["inputs"]) == {"images.parquet", "truth.parquet"} | {
        f"{name}.zarr" for name in ("logits", "fused", "pseudo", "refined", "scores")
    }
    for name, digest in record["outputs"].items():
        assert digest == file_digest(given["images"].with_name(name))
    tables = {"metrics.csv", "per_class.csv", "confidence.csv", "agreement.csv", "thresholds_f1.csv"}
    assert set(record["outputs"]) == tables


def test_what_each_rule_of_thresholds_names_is_measured(tmp_path):
    given = hand_made(tmp_path)
    z = np.array([[2, 0, -1], [-2, 1, -1]], dtype=np.float32)  # images b (dog) and d (cat)
    write_zarr(tmp_path / "scores.zarr", ["b", "d"], ["dog", "cat", "cow"], z=z)
    result = Thresholds("count", {"fixed": [0.5] * 3, "count": [0.5, 0.7, 0.2]})
    rows = [StageThresholds.of_logits("student", result, z, [0.5] * 3)]
    write_thresholds(tmp_path / "thresholds.csv", ["dog", "cat", "cow"], rows)
    options = given | {"scores": tmp_path / "scores.zarr", "thresholds": tmp_path / "thresholds.csv"}
    rows = run(options)["thresholds_f1"].set_index("rule")
    # Fixed: dog in b, cat in both, its probability in b being 0.5: F1 100 and 2 / 3. Count: no cat in b, cow twice.
    assert rows["labels_per_image"].to_dict() == {"fixed": 1.5, "count": 2}
    assert rows["mean_F1"].to_dict() == pytest.approx({"fixed": 250 / 3, "count": 100}, rel=1e-5)
    assert rows["CP"].to_dict() == {"fixed": 75, "count": 100}
    assert rows["OP"].to_dict() == pytest.approx({"fixed": 200 / 3, "count": 50}, rel=1e-5)
    without = run({name: path for name, path in options.items() if name != "labels"})["thresholds_f1"]
    assert without[["mean_F1", "CF1"]].isna().all(axis=None) and without["labels_per_image"].tolist() == [1.5, 2]
    # One rule names everything: the student by its thresholds of rule count, stages that have none by 0.5.
    measured = run(options)["metrics"].set_index("stage")
    assert measured.loc["student", ["CP", "OP", "labels_per_image"]].tolist() == [100, 50, 2]
    by_half = run({name: path for name, path in options.items() if name != "thresholds"})["metrics"].set_index("stage")
    pd.testing.assert_frame_equal(measured.drop("student"), by_half.drop("student"), check_dtype=False)
    assert by_half.loc["student", ["CP", "labels_per_image"]].tolist() == [75, 1.5]


def test_without_thresholds_their_table_has_no_rows(given):
    table = run(given)["thresholds_f1"]
    assert table.empty and "mean_F1" in table.columns


def test_missing_image(given, tmp_path):
    write_zarr(tmp_path / "refined.zarr", ["image-000"], CLASSES, z=np.zeros((1, 3), dtype=np.float32))
    with pytest.raises(UserError, match=r"refined\.zarr: lacks 11 of 12 images, such as 'image-001'"):
        run(given)


def test_other_classes(given, tmp_path):
    write_zarr(tmp_path / "fused.zarr", ["image-000"], ["x", "y"], z=np.zeros((1, 2), dtype=np.float32))
    with pytest.raises(UserError, match=r"fused\.zarr: its classes are not those of .*logits\.zarr"):
        run(given)


def test_truth_without_a_class(given):
    pd.read_parquet(given["labels"]).drop(columns="dog").to_parquet(given["labels"])
    with pytest.raises(UserError, match=r"truth\.parquet: has no column 'dog'"):
        run(given)


def test_classes_and_images_without_truth_are_left_out_and_named(given, capsys):
    whole = run(given)
    capsys.readouterr()
    truth = pd.read_parquet(given["labels"])
    ids = read_manifest(given["images"], split="test")["id"]
    kept = truth["id"].isin(ids[2:])
    missing, barren = CLASSES[0], CLASSES[2]
    truth.loc[kept].assign(**{missing: np.int8(-1), barren: np.int8(0)}).to_parquet(given["labels"])
    tables = run(given)
    metrics = tables["metrics"].set_index(["split", "stage"])
    stated = f"mAP over 1 of 3 classes: no truth for {missing}, no image with {barren}"
    assert metrics.loc[("test", "student"), "remark"] == f"measured on the 6 of 8 images with truth; {stated}"
    assert metrics.loc[("test", "student"), "mAP_classes"] == 1
    classes = tables["per_class"].query("split == 'test' and stage == 'student'").set_index("class")
    assert metrics.loc[("test", "student"), "mAP"] == pytest.approx(classes.loc[CLASSES[1], "AP"])
    assert classes.loc[missing, ["positives", "AP", "inversions"]].isna().all()
    assert classes.loc[barren, "positives"] == 0 and np.isnan(classes.loc[barren, "AP"])
    assert pd.isna(metrics.loc[("train", "fused"), "remark"]) and np.isnan(metrics.loc[("train", "fused"), "mAP"])
    assert f"test: {stated}" in capsys.readouterr().out
    assert whole["metrics"]["mAP_classes"].eq(3).all()


def test_truth_that_is_not_there(given, tmp_path):
    with pytest.raises(UserError, match=r"none\.parquet: no such file of true labels"):
        run(given, labels=tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 0], "no image has a label"),
        ([4, 0], "every image has the same labels (cat)"),
        ([4, 4], "every image has the same labels (cat, dog)"),
        ([2, 0], "cat is the only class that is named"),
        ([2, 1], ""),
    ],
)
def test_degenerate_labels_by_hand(labels, said):
    assert describe_degenerate(np.array(labels), 4, ["cat", "dog"]) == said


def test_degenerate_labels_and_images_seen_in_training_are_told(tmp_path, capsys):
    given = make_run(tmp_path, images=False)
    ids = labels_of(open_group(given["pseudo"]), "image")
    z = np.where(np.arange(3) == 1, 3, -3).astype(np.float32) * np.ones((len(ids), 1), np.float32)
    write_zarr(given["pseudo"], ids, CLASSES, z=z)
    images = pd.read_parquet(given["images"])
    images.loc[images.index[-1], "digest"] = images["digest"][0]
    images.to_parquet(given["images"])
    evaluate(given.pop("images"), tmp_path / "metrics.csv", settings=SETTINGS, **given)
    stated = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert "note: pseudo, train: every image has the same labels (dog)" in stated
    assert stated[-1] == (
        "note: zero_shot, fused, student, test: 1 of the held-out images are among the training images too,"
        " image-019 among them"
    )


def measured(z, truth=None, decided=None):
    """Measure the logits of a student on held-out images, a class at a time."""
    outcome = SimpleNamespace(stage="student", classes=[f"c{c}" for c in range(z.shape[1])])
    result = StageMeasures(outcome, "test", len(z), EvaluateConfig(), decided or RunThresholds(), rules=False)
    result.add_images(z)
    for c in range(z.shape[1]):
        part = slice(c, c + 1)
        result.add_classes(part, z[:, part], np.full((len(z), 1), -1, np.int8) if truth is None else truth[:, part])
    return result


def test_classes_of_few_positives_are_left_out_of_a_second_mean(monkeypatch):
    """Three positives of the first class, two of the second: with at least three, the first one's AP alone counts."""
    monkeypatch.setattr("cutsew.reporting.measures.FEW", 3)
    truth = np.array([[1, 0], [1, 1], [1, 0], [0, 1]], dtype=np.int8)
    z = np.array([[3, 4], [2, 3], [0, 2], [1, 1]], dtype=np.float32)
    row = measured(z, truth).whole()
    first = (1 + 1 + 3 / 4) / 3  # ranked 1, 2 and 4
    second = (1 / 2 + 2 / 4) / 2  # ranked 2 and 4
    assert row["mAP"] == pytest.approx(50 * (first + second)) and row["mAP_classes"] == 2
    assert row["mAP_10"] == pytest.approx(100 * first) and row["mAP_10_classes"] == 1
    monkeypatch.setattr("cutsew.reporting.measures.FEW", 4)
    row = measured(z, truth).whole()
    assert row["mAP_10"] is None and row["mAP_10_classes"] == 0


def test_the_second_mean_is_shown_where_it_says_something_else():
    table = pd.DataFrame({"stage": ["fused", "student"], "split": "test", "mAP": [50.0, 60.0], "mAP_10": [50.0, 60.0]})
    assert "mAP_10" not in as_text(table)
    assert "mAP_10" in as_text(table.assign(mAP_10=[50.0, 61.0]))


def test_counts_agree_where_probabilities_are_near_1():
    """In float32 both probabilities are 1; thresholds lie between logits, so that float64 separates the images."""
    z = np.array([[17.5], [18.0]], dtype=np.float32)
    threshold = sigmoid(np.array([17.75]))
    assert (sigmoid(z) >= threshold).all()
    decided = RunThresholds(by_stage={"student": Thresholds("count", {"count": threshold.tolist()})})

    found = measured(z, decided=decided)
    whole, per_class = found.whole(), found.per_class()
    assert whole["labels_per_image"] == 0.5 and per_class[0]["labels"] == 1
    assert tally([z], np.full((2, 1), -1, np.int8), threshold).labels.total == 1
    assert changes([(z, z)], (threshold, threshold)).present.tolist() == [1]
    audited = Tally.empty(1)
    audited.add(Slice(["a", "b"], z, z, None), threshold, threshold)
    assert audited.labeled.tolist() == [1] and audited.none == 1
