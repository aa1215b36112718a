"""labels.csv and labels.parquet of a run: every value held against the Zarrs that it comes from."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from synthetic_run import CLASSES, make_run, write_zarr

from cutsew.errors import UserError
from cutsew.stages.labels_table import labels_table
from cutsew.storage import predictions
from cutsew.storage.label_corrections import Corrections, write_corrections
from cutsew.storage.label_table import LISTS, names_in
from cutsew.storage.manifest import read_manifest, write_manifest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.result_tables import StageThresholds, Thresholds, rule_in_words, write_thresholds

SETTINGS = {"evaluate": {"threshold": 0.4}}
BY_CLASS = [0.3, 0.6, 0.9]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(predictions, "IMAGES_AT_ONCE", 5)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, images=False)


def with_thresholds(run):
    path = run["images"].with_name("thresholds.csv")
    result = Thresholds("count", {"fixed": [0.5] * 3, "count": BY_CLASS})
    write_thresholds(
        path, list(CLASSES), [StageThresholds.of_logits("student", result, np.zeros((1, 3), np.float32), [0.1] * 3)]
    )
    return path


def make(run, stages, classes=CLASSES, **others):
    out = run["images"].with_name("labels.csv")
    labels_table(run["images"], out, settings=SETTINGS, stage=[f"{k}={run[v]}" for k, v in stages.items()], **others)
    table = pd.read_csv(out, dtype=dict.fromkeys(["labels", "model_labels", "by_human"], str), keep_default_na=False)
    second = pd.read_parquet(out.with_suffix(".parquet"))
    texts = [name for name in table.columns if not name.startswith("p_")]
    for name in texts:
        lists = name in LISTS
        values = [names_in(text) for text in table[name]] if lists else table[name].tolist()
        assert [list(value) if lists else value for value in second[name]] == values
    numbers = [f"p_{name}" for name in classes]
    assert list(table.columns) == list(second.columns) == [*texts, *numbers]
    assert table[numbers].to_numpy() == pytest.approx(second[numbers].to_numpy(), rel=1e-5)
    return table.set_index("id"), json.loads(out.with_suffix(".json").read_text())


LAST = {"refined": "refined", "student": "scores"}


def test_every_image_has_the_labels_of_its_last_stage(run):
    table, record = make(run, LAST, thresholds=with_thresholds(run))
    images = read_manifest(run["images"])
    assert set(table.index) == set(images["id"]) and len(table) == 20
    for stage, split, thresholds in (("refined", "train", [0.4] * 3), ("student", "test", BY_CLASS)):
        ids = images.loc[images["split"] == split, "id"].tolist()
        p = 1 / (1 + np.exp(-StagePredictions(stage, run[LAST[stage]]).read(ids).astype(np.float64)))
        here = table.loc[ids]
        assert set(here["stage"]) == {stage} and set(here["split"]) == {split} and set(here["by_human"]) == {""}
        assert here[[f"p_{c}" for c in CLASSES]].to_numpy() == pytest.approx(p, rel=1e-5)
        expected = [[c for c, yes in zip(CLASSES, row, strict=True) if yes] for row in p >= thresholds]
        assert [names_in(text) for text in here["labels"]] == [names_in(t) for t in here["model_labels"]] == expected
    assert record["facts"]["stages"] == {"train": "refined", "test": "student"}
    assert record["facts"]["thresholds"] == {"refined": rule_in_words("fixed", 0.4), "student": rule_in_words("count")}
    assert record["facts"]["labels"] == sum(map(len, map(names_in, table["labels"])))


def test_logits_are_read_once(run, monkeypatch):
    rows = []
    read_rows = predictions.read_rows
    monkeypatch.setattr(predictions, "read_rows", lambda array, part: rows.append(len(part)) or read_rows(array, part))
    table, _ = make(run, LAST)
    assert sum(rows) == len(table)


def test_a_run_without_student_has_those_of_the_cutting(run):
    table, record = make(run, {"pseudo": "pseudo", "fused": "fused"})
    assert record["facts"]["stages"] == {"train": "pseudo", "test": "fused"}
    assert table.groupby("split")["stage"].unique().map(list).to_dict() == {"train": ["pseudo"], "test": ["fused"]}
    p = table[[f"p_{c}" for c in CLASSES]].to_numpy()
    assert [len(names_in(text)) for text in table["labels"]] == (p >= 0.4).sum(axis=1).tolist()


def test_a_humans_corrections_win_and_are_marked(run):
    rows = [("image-000", "train", "cat", 1), ("image-000", "train", "dog", 0), ("image-019", "test", "horse", 1)]
    stated = pd.DataFrame(rows, columns=["image", "split", "class", "present"]).assign(by="Ada", at="")
    path = run["images"].with_name("corrections.parquet")
    write_corrections(path, Corrections(stated, CLASSES))
    table, record = make(run, LAST, thresholds=with_thresholds(run), corrections=path)
    plain, _ = make(run, LAST, thresholds=with_thresholds(run))
    assert table["model_labels"].tolist() == plain["labels"].tolist()
    assert table.loc[["image-000", "image-019"], "by_human"].tolist() == ["cat;dog", "horse"]
    first = names_in(table.loc["image-000", "labels"])
    assert "cat" in first and "dog" not in first and "horse" in names_in(table.loc["image-019", "labels"])
    others = table.index.difference(["image-000", "image-019"])
    assert table.loc[others, "labels"].tolist() == plain.loc[others, "labels"].tolist()
    assert record["facts"]["by_human"] == 3


def test_images_without_finite_labels_are_left_out_and_counted(run, caplog):
    fused = run["fused"].with_name("partly.zarr")
    ids = read_manifest(run["images"])["id"].tolist()
    z = np.zeros((20, 3), dtype=np.float32)
    z[19] = np.nan
    write_zarr(fused, ids, CLASSES, z=z)
    table, record = make({**run, "partly": fused}, {"pseudo": "pseudo", "fused": "partly"})
    assert ids[19] not in table.index and len(table) == 19 and record["facts"]["without_finite_labels"] == 1
    assert "1 images without finite labels are excluded" in caplog.text


HOSTILE = ("<b>;x", "new\nline, \"'", "id", "path", "../..\\")


def test_hostile_names_come_back_as_they_are(tmp_path):
    ids = [f"{i}{name}.jpg" for i, name in enumerate(("new\nline", ',"', "-rf", "=1+1", "$(touch x)", "{run}"))]
    run = make_run(tmp_path, train=6, test=0, classes=HOSTILE, names=ids, images=False)
    table, _ = make(run, {"refined": "refined"}, HOSTILE)
    assert table.index.tolist() == ids
    p = table[[f"p_{name}" for name in HOSTILE]].to_numpy()
    for text, row in zip(table["labels"], p, strict=True):
        assert names_in(text) == [name for name, value in zip(HOSTILE, row, strict=True) if value >= 0.4]


def test_memory_is_that_of_a_slice(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "IMAGES_AT_ONCE", 256)
    classes, peaks = tuple(f"class {c}" for c in range(100)), []
    for count in (500, 2000):
        folder = tmp_path / str(count)
        folder.mkdir()
        ids = [f"{i:06d}" for i in range(count)]
        table = pd.DataFrame({"id": ids, "path": ids, "width": 1, "height": 1, "bytes": 1, "digest": ids})
        write_manifest(folder / "images.parquet", table.assign(split="train", shard=0))
        zarr = write_zarr(folder / "pseudo.zarr", ids, classes, 256, z=np.zeros((count, 100), np.float32))
        tracemalloc.start()
        labels_table(folder / "images.parquet", folder / "labels.csv", settings=SETTINGS, stage=[f"pseudo={zarr}"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1500 * 100 * 4  # less than the further images' logits alone


def test_classes_that_differ_between_the_inputs_are_refused(run):
    path = with_thresholds(run)
    path.write_text(path.read_text().replace("dog", "cow"))
    with pytest.raises(UserError, match="its classes are not the model's"):
        make(run, LAST, thresholds=path)
