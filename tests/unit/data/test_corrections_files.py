"""Corrections from an edited labels.csv and from Label Studio: what was changed there comes back, and nothing else."""

import csv
import json
import re

import pandas as pd
import pytest

from cutsew.config.schema import Config
from cutsew.data.corrections_csv import corrections_of, read_overrides, split_of_corrections
from cutsew.errors import UserError
from cutsew.pipeline.preflight import validate_inputs
from cutsew.storage.manifest import write_manifest

CLASSES = ["cat", "dog;big", "cafe\u0301"]
IDS = ["a.jpg", "b\n.jpg", "sub/c.jpg"]
HEAD = ["id", "path", "split", "stage", "labels", "model_labels", "by_human", "p_cat"]


def said(table):
    return {(row["image"], row["class"]): row["present"] for row in table.to_dict("records")}


def edited(tmp_path, *rows, head=HEAD):
    path = tmp_path / "edited.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def row(name, labels, model, by_human=""):
    return [name, name, "train", "refined", labels, model, by_human, "0.5"]


def test_what_was_changed_in_the_table_comes_back(tmp_path):
    path = edited(
        tmp_path,
        row(IDS[0], "cat; dog\\;big ", "cat"),  # added
        row(IDS[1], "", "cat;cafe\u0301"),  # crossed out, both
        row(IDS[2], "caf\u00e9", "cafe\u0301"),  # the same, typed elsewhere
    )
    result = corrections_of(path, IDS, CLASSES)
    assert said(result) == {(IDS[0], "dog;big"): 1, (IDS[1], "cat"): 0, (IDS[1], CLASSES[2]): 0}
    assert result["line"].tolist() == [2, 3, 3] and result["present"].dtype == "int8"


def test_an_image_with_thousands_of_labels_is_read(tmp_path):
    classes = [f"number {c} of the people" for c in range(9_000)]
    path = edited(tmp_path, row(IDS[0], ";".join(classes[1:]), ";".join(classes)), row(IDS[1], classes[0], ""))
    assert said(corrections_of(path, IDS, classes)) == {(IDS[0], classes[0]): 0, (IDS[1], classes[0]): 1}


def test_what_a_human_said_before_is_kept(tmp_path):
    path = edited(tmp_path, row(IDS[0], "cat", "cat;dog\\;big", "cat;dog\\;big"), row(IDS[1], "", "", "cat"))
    assert said(read_overrides(path, CLASSES)) == {
        (IDS[0], "cat"): 1,
        (IDS[0], "dog;big"): 0,
        ("b\n.jpg", "cat"): 0,
    }


def test_a_table_that_nobody_edited_corrects_nothing(tmp_path):
    assert read_overrides(edited(tmp_path, row(IDS[0], "cat", "cat"), row(IDS[1], "", "")), CLASSES).empty


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        ([row("a.jpg", "Cat", "cat")], HEAD, "line 2, column class: 'Cat' is not one of classes"),
        (
            [row("a.jpg", "cat", ""), row("gone.jpg", "cat", "")],
            HEAD,
            "line 3, column image: 'gone.jpg' is not an image",
        ),
        ([row("a.jpg", "cat", "")[1:]], HEAD[1:], "has no column 'id'; keep that of labels.csv"),
        ([row("a.jpg", "cat", ""), row("a.jpg", "", "cat")], HEAD, "lines 2 and 3, column present: 'cat' of 'a.jpg'"),
        ([["a.jpg", "cat"]], ["id", "labels"], "has no column 'image'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(tmp_path, rows, head, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        corrections_of(edited(tmp_path, *rows, head=head), IDS, CLASSES)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("labels.overrides: ")


def task(name, *annotations, by_human=None):
    data = {"image": "/data/local-files/?d=x", "id": name, "by_human": by_human or {}}
    return {"id": 7, "data": data, "annotations": list(annotations), "predictions": []}


def annotation(*names, at="2026-01-01T00:00:00Z", **others):
    result = [{"from_name": "labels", "to_name": "image", "type": "choices", "value": {"choices": list(names)}}]
    record = {"id": 1, "result": result if names else [], "was_cancelled": False, "updated_at": at}
    return record | {"completed_by": {"id": 1, "email": "ada@example.org"}} | others


def export(tmp_path, *tasks):
    path = tmp_path / "project.json"
    path.write_text(json.dumps(list(tasks)), encoding="utf-8")
    return path


def test_an_annotated_task_decides_all_classes(tmp_path):
    path = export(tmp_path, task(IDS[0], annotation("dog;big")), task(IDS[1], annotation()), task(IDS[2]))
    result = corrections_of(path, IDS, CLASSES)
    assert said(result) == {
        (IDS[0], "cat"): 0,
        (IDS[0], "dog;big"): 1,
        (IDS[0], CLASSES[2]): 0,
        **{(IDS[1], name): 0 for name in CLASSES},
    }
    assert set(result["by"]) == {"ada@example.org"} and set(result["at"]) == {"2026-01-01T00:00:00Z"}


def test_the_last_annotation_counts_and_skipped_ones_do_not(tmp_path):
    late = annotation("cat", at="2026-02-01T00:00:00Z", completed_by=3)
    skipped = annotation("dog;big", at="2026-03-01T00:00:00Z", was_cancelled=True)
    result = read_overrides(export(tmp_path, task(IDS[0], late, annotation("dog;big"), skipped)), CLASSES)
    assert said(result) == {(IDS[0], "cat"): 1, (IDS[0], "dog;big"): 0, (IDS[0], CLASSES[2]): 0}
    assert set(result["by"]) == {"3"}


def test_corrections_of_tasks_that_nobody_annotated_stay(tmp_path):
    path = export(tmp_path, task(IDS[0], by_human={"cat": 1, "dog;big": 0}), task(IDS[1]))
    assert said(read_overrides(path, CLASSES)) == {(IDS[0], "cat"): 1, (IDS[0], "dog;big"): 0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not readable JSON; export the project again"),
        ("[" * 100_000, "is not readable JSON"),
        ('{"data": {}}', "task 1: not part of a Label Studio export with annotations"),
        ('[{"image": "x", "labels": {"choices": ["cat"]}, "id": 1}]', "as JSON, not as JSON-MIN"),
        ('[{"data": {"image": "x"}, "annotations": []}]', "task 1: its data has no id of an image"),
        (
            json.dumps([task("a.jpg", annotation("cat")), task("x.jpg", annotation("cat"))]),
            "task 2, column image: 'x.jpg'",
        ),
        (json.dumps([task("a.jpg", annotation("cow"))]), "task 1, column class: 'cow' is not one of classes"),
        (
            json.dumps([task("a.jpg", annotation("cat")), task("a.jpg", annotation())]),
            "tasks 1 and 2, column present: 'cat'",
        ),
    ],
)
def test_an_export_that_does_not_fit_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "project.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        corrections_of(path, IDS, CLASSES)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("labels.overrides: ")


def test_a_missing_export_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"labels.overrides: .*gone.json does not exist"):
        read_overrides(tmp_path / "gone.json", CLASSES)


def test_the_plan_knows_which_of_them_train(tmp_path):
    table = pd.DataFrame({"id": IDS, "path": IDS, "width": 1, "height": 1, "bytes": 1, "digest": IDS, "shard": 0})
    write_manifest(tmp_path / "images.parquet", table.assign(split=["train", "train", "test"]))
    path = export(tmp_path, task(IDS[0], annotation("cat")), task(IDS[2], annotation("cat")))
    result = split_of_corrections(path, tmp_path / "images.parquet", CLASSES)
    assert result.groupby("split").size().to_dict() == {"train": 3, "test": 3}


def test_the_workflows_own_table_is_no_file_of_corrections(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = "results/demo/default/labels.csv"
    config = Config.model_validate({"classes": ["a", "b"], "labels": {"overrides": overrides}})
    with pytest.raises(UserError, match="written by the workflow; name a copy of it elsewhere"):
        validate_inputs(config)
