"""The model card of an export says what the run's records say, and nothing that they do not."""

import json
import re

import pandas as pd
import pytest
import yaml
from audited_run import make_base, make_corrections
from sewing_world import CLASSES, backbone
from test_export import make_student

from cutsew.commands import export as tool
from cutsew.models.student import load
from cutsew.storage.result_tables import Thresholds


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("card"))


def written(run, folder, build=backbone):
    tool.write(run, folder, None, None, onnx=False, build=build)
    return (folder / "MODEL_CARD.md").read_text()


def rows(card):
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", card, re.MULTILINE))


def test_what_the_card_of_a_run_says(base, tmp_path):
    card = written(base, tmp_path / "a")
    record, metrics = json.loads((base / "adapter.json").read_text()), pd.read_csv(base / "metrics.csv")
    student = metrics[(metrics["stage"] == "student") & (metrics["split"] == "test")].iloc[0]
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["pipeline_tag"] == "image-classification" and metadata["tags"][-1] == "safetensors"
    (result,) = metadata["model-index"][0]["results"]
    assert {row["type"]: row["value"] for row in result["metrics"]} == {
        name: round(student[name], 1) for name in ("mAP", "CF1", "OF1")
    }
    table = rows(card)
    assert table["date"] == record["end"][:10]
    assert table["data"] == "tiny/default: 11 unannotated images; 3 held out"
    assert table["adapter.safetensors"] == f"`{record['outputs']['adapter.safetensors']}`"
    assert {name: table[name] for name in CLASSES} == dict.fromkeys(CLASSES, "0.5")
    assert yaml.safe_load(table["train"])["seed"] == record["settings"]["train"]["seed"]
    assert f"| this model | {student['mAP']:.1f} |" in card and "On 3 held-out images" in card
    assert "Fewer than 10 training images" in card and "a person corrected" not in card


def test_two_exports_have_one_card(base, tmp_path):
    assert written(base, tmp_path / "a") == written(base, tmp_path / "b")


def test_corrections_and_a_lack_of_truth_are_said(tmp_path):
    base = make_base(tmp_path)
    make_corrections(base, "i00,bee,1,Ada,", "i02,cat,0,Ada,")
    table = pd.read_csv(base / "metrics.csv")
    table.assign(mAP=float("nan")).to_csv(base / "metrics.csv", index=False)
    card = written(base, tmp_path / "out")
    assert "a person corrected 2 labels" in card
    assert "Not measured: there were no true labels." in card and "model-index" not in card


def test_a_student_without_its_run_has_a_shorter_card(tmp_path):
    make_student(tmp_path, "open_clip", "cutsew-tiny", "demo", 96)
    tool.write(tmp_path, tmp_path / "out", None, None, onnx=False)
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "# A multi-label classifier of 3 classes" in card and "Not measured" in card
    assert "## Training" not in card and "## Digests" not in card


def test_names_of_classes_are_shown_as_they_are(tmp_path):
    from cutsew.inference.model_card import card

    make_student(tmp_path, "open_clip", "cutsew-tiny", "demo", 96)
    student = load(tmp_path)
    student.classes = ["<script>", "a|b", "line\nbreak"]
    text = card(tmp_path, student, Thresholds("fixed", {"fixed": [0.5] * 3}), [])
    assert "| &lt;script&gt; | 0.5 |" in text and "| a\\|b | 0.5 |" in text
    assert "<script>" not in text and "line\nbreak" not in text
