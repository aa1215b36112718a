"""The top of the report, by hand: the sentence, the warnings with their advice, the numbers that auto stood for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_run import write_report

from cutsew.method.schedule import FEWEST_STEPS
from cutsew.reporting.charts import per_class
from cutsew.reporting.overview import find_warnings, resolved, summary_sentence, where_labels_are_from
from cutsew.reporting.page import _shown
from cutsew.reporting.page_tables import headlines
from cutsew.reporting.run_data import Labels


class Run:
    classes = ("cat", "dog", "cow")
    main = "test"
    stages = {"train": ("zero_shot", "refined"), "test": ("zero_shot", "student")}


def labels(*rows):
    result = Labels.of(3)
    result.add(np.array(rows, dtype=bool))
    return result


MIXED = labels([1, 0, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0])


def metrics(**ap):
    rows = [{"stage": stage, "split": "test", "mAP": value} for stage, value in ap.items()]
    return pd.DataFrame(rows, columns=["stage", "split", "mAP"])


def texts(table=None, counted=MIXED, **facts):
    records = [{"stage": stage, "facts": content, "settings": {}} for stage, content in facts.items()]
    by_split = counted if isinstance(counted, dict) else {"test": counted}
    return [warning.text for warning in find_warnings(Run, metrics() if table is None else table, by_split, records)]


def test_a_sentence_says_what_was_found():
    expected = "4 images with 1.2 labels on average, most often cat (2), dog (2), cow (1); 1 has none."
    assert summary_sentence(Run, {"test": MIXED}) == expected
    expected = "6 images with 1.2 labels on average, most often dog (4), cat (2), cow (1); 1 has none."
    assert summary_sentence(Run, {"train": labels([0, 1, 0], [0, 1, 0]), "test": MIXED}) == expected
    assert where_labels_are_from(Run) == (
        "Labels are those of stage refined (training images) and student (held-out images)"
    )


def test_a_class_that_few_held_out_images_lack_by_chance_is_not_warned_of():
    held, train = labels([1, 0, 0], [0, 0, 1], [1, 0, 1]), [[0, 1, 0], [1, 0, 1]]
    assert texts(counted={"train": labels(*train), "test": held}) == []
    (text,) = texts(counted={"train": labels(*train), "test": labels(*10 * [[1, 0, 0], [1, 0, 1]])})
    assert text.startswith("Predicted on every test image")
    held = labels(*10 * [[1, 0, 0], [0, 0, 1]])
    assert texts(counted={"train": labels(*10 * train), "test": held}) == ["Never predicted on test images: dog."]


def test_a_sound_run_is_not_warned_of():
    table = metrics(zero_shot=50.0, fused=60.0, student=58.5)
    assert texts(table, train={"steps": FEWEST_STEPS}, manifest={"left": []}) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"table": metrics(zero_shot=46.2, fused=55.7, student=39.0)}, "The student (mAP 39.0) is below zero-shot"),
        ({"table": metrics(zero_shot=46.2, fused=55.7, student=50.0)}, "far below the fused labels (55.7)"),
        ({"train": {"steps": 14}}, "trained for 14 steps only"),
        ({"counted": labels([1, 0, 0], [0, 0, 1], [1, 0, 1])}, "Never predicted on test images: dog"),
        ({"counted": labels([1, 0, 1], [0, 1, 1], [0, 0, 1])}, "Predicted on every test image: cow"),
        ({"counted": labels([0, 0, 1], [0, 0, 1])}, "Every image has the same labels (cow) (student, test images)"),
        ({"counted": labels([0, 0, 0], [0, 0, 0])}, "No image has a label"),
        ({"manifest": {"left": [{"label": ".pdf", "reason": "no image", "count": 3}]}}, "3 files were left out (.pdf)"),
        ({"manifest": {"left": [{"label": ".pdf", "reason": "no image", "count": 1}]}}, "1 file was left out (.pdf)"),
    ],
)
def test_what_looks_wrong_is_warned_of_once(given, said):
    (text,) = texts(**given)
    assert said in text


@pytest.mark.parametrize(("head", "setting"), [("adapter", "train.epochs: auto"), ("linear", "train.steps: 800")])
def test_advice_on_few_steps_names_the_setting_of_the_head(head, setting):
    record = {"stage": "train", "facts": {"steps": 14}, "settings": {"train": {"head": head}}}
    (warning,) = find_warnings(Run, metrics(), {"test": MIXED}, [record])
    assert warning.advice == f"Set {setting}."


def test_advice_on_a_weak_student_names_what_helps():
    table = metrics(zero_shot=46.6, fused=63.6, student=52.6)
    (warning,) = find_warnings(Run, table, {"test": MIXED}, [])
    assert warning.advice.startswith("Set method: cutsew, or train.epochs: auto for more steps; until then, use the")
    record = {"stage": "train", "facts": {"steps": 800}, "settings": {"train": {"head": "linear"}}}
    (warning,) = find_warnings(Run, table, {"test": MIXED}, [record])
    assert warning.advice == (
        "Add images; until then, use the fused labels (cutsew labels --stage fused) or student and teacher together "
        "(predict.ensemble: teacher)."
    )
    (warning,) = find_warnings(Run, metrics(fused=63.6, student=52.6, ensemble=65.5), {"test": MIXED}, [record])
    assert warning.advice.endswith("student and teacher together (mAP 65.5).")


def test_few_training_images_of_a_class_are_told_without_truth():
    by_split = {"train": labels(*3 * [[1, 0, 0]], *10 * [[0, 1, 0]], *9 * [[0, 0, 1]]), "test": MIXED}
    (warning,) = find_warnings(Run, metrics(), by_split, [{"stage": "train", "settings": {}}])
    assert warning.text == "Fewer than 10 training images are labeled with cat (3), cow (9)."
    assert warning.advice.endswith("student and teacher together (predict.ensemble: teacher).")
    weak, few = find_warnings(Run, metrics(fused=60, student=50), by_split, [{"stage": "train", "settings": {}}])
    assert "--stage fused" in weak.advice and few.advice == "The student hardly learns them: add images."
    assert find_warnings(Run, metrics(), by_split, []) == []  # no student


def test_a_zarr_is_listed_without_its_chunk_files():
    record = {"outputs": {"views.zarr": "1a", "views.zarr/crops/c/0": "2b", "world/a.jpg": "3c", "world/b.jpg": "4d"}}
    record |= {"inputs": {}, "settings": {}}
    shown = _shown(Path("views.json"), record)
    assert dict(shown["outputs"]) == {"views.zarr": "1a", "world": "2 files"} and shown["more"] == 0


def test_numbers_that_auto_stood_for_are_marked():
    records = [
        {"stage": "train", "settings": {"train": {"epochs": "auto", "lr": 0.003}}}
        | {"facts": {"steps": 800, "rate": 0.003}},
        {"stage": "select", "settings": {"select": {"top_k": "auto"}}, "facts": {"top_k": 13}},
        {"stage": "targets", "settings": {"targets": {"labels_per_image": 1.5}}, "facts": {"count": 1.5}},
    ]
    expected = "steps 800 (auto), learning rate 0.003, top_k 13 (auto), labels per image 1.5"
    assert resolved(records) == expected
    assert resolved(records[1:]) == ""


def test_headlines_tell_gains_from_losses():
    rows = [("zero_shot", 50.0, 40.0, 1.0), ("student", 45.0, 41.0, 1.5)]
    table = pd.DataFrame(rows, columns=["stage", "mAP", "OF1", "labels_per_image"]).assign(split="test")
    assert [row[-1] for row in headlines(table, "test")] == ["loss", "gain", ""]
    assert headlines(table, "test")[0][0] == "mAP, test: zero-shot to student"
    assert headlines(table.assign(mAP=float("nan"), OF1=float("nan")), "test") == []
    level = table.assign(OF1=[40.02, 39.98])  # both are shown as 40.0
    assert [row[-1] for row in headlines(level, "test")] == ["loss", "", ""]


def test_classes_of_few_images_are_marked():
    rows = [(stage, "test", name, n, ap) for stage, ap in (("zero_shot", 40.0), ("student", 60.0))
            for name, n in (("cat", 4), ("dog", 5))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["stage", "split", "class", "positives", "AP"])
    chart = per_class(table, "test", "zero_shot", "student")
    assert ">cat *<" in chart.svg and "dog *" not in chart.svg and "* fewer than 5 images" in chart.caption


def test_the_page_begins_with_what_was_found(tmp_path):
    page = write_report(tmp_path / "demo" / "default").read_text(encoding="utf-8")
    top = page[: page.index("</header>")]
    assert "labels on average" in top and 1 <= top.count('<li><img src="data:image') <= 8
