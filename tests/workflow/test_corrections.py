"""A human's corrections in the workflow: training reruns for training images alone, exports and report for all."""

import json

import pandas as pd
import pytest
from workflow_run import cutsew

from cutsew.config import override

pytestmark = pytest.mark.workflow

SHOWN = {"corrections": 1, "labels_table": 1, "report": 1}
TRAINED = {"train": 1, "predict": 1, "thresholds": 1, "labels_table": 1, "evaluate": 1, "report": 1}
HEAD = "image,class,present,by,at\n"
HELD_OUT = "held-out/1.jpg,cat,1,Ada,2026-01-02T03:04:05Z\n"
TRAINING = "3.jpg,dog,1,Ada,2026-01-02T03:05:05Z\n"


@pytest.fixture(scope="module")
def finished(workflow):
    workflow.run()
    return workflow


def correct(workflow, *rows):
    (workflow.folder / "audit.csv").write_text(HEAD + "".join(rows))
    workflow.edit(labels={"overrides": "audit.csv"})


def run_once(workflow):
    """Run; nothing is left to do afterwards, and every artifact was made from those that are there."""
    jobs = workflow.run()
    assert workflow.run("--dry-run") == {}
    result = cutsew(workflow, "verify", "results/tiny/default")
    assert result.returncode == 0, result.stdout + result.stderr
    return jobs


def exported(workflow, *options):
    """Labels by image as COCO's tools see them: class -> score and source."""
    reported = cutsew(workflow, "labels", "results/tiny/default", "labels.json", "--format", "coco", *options)
    assert reported.returncode == 0, reported.stderr
    content = json.loads((workflow.folder / "labels.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    image_name = {image["id"]: image["image"] for image in content["images"]}
    result = {}
    for row in content["annotations"]:
        reported = (row["score"], row.get("source"))
        result.setdefault(image_name[row["image_id"]], {})[names[row["category_id"]]] = reported
    return result


def test_corrections_of_held_out_images_train_nothing_and_say_so(finished):
    correct(finished, HELD_OUT)
    planned = finished.snakemake("--dry-run")
    assert "audit.csv: 1 label corrected, all of held-out images: they train nothing" in planned.stderr
    assert "rule train:" not in planned.stdout + planned.stderr
    assert run_once(finished) == SHOWN
    run = finished.results / "default"
    assert "they train nothing" in (run / "logs" / "corrections.log").read_text()
    assert "they train nothing" in (run / "report.html").read_text()
    assert "by_hand" not in pd.read_csv(run / "metrics.csv").columns
    assert exported(finished)["held-out/1.jpg"]["cat"] == (1.0, "human")


def test_corrections_of_training_images_rerun_training_and_what_follows(finished):
    correct(finished, HELD_OUT, TRAINING)
    assert run_once(finished) == {"corrections": 1, "override": 1, **TRAINED}
    run = finished.results / "default"
    table = pd.read_csv(run / "metrics.csv").set_index("stage")["by_hand"]
    assert table["overridden"] == table["student"] == 1 and table["pseudo"] == 0
    log = (run / "logs" / "override.log").read_text()
    assert "1 labels of 1 training images were set by hand" in log
    assert "corrections of held-out images, which do not affect training: 1" in log
    labels = exported(finished)
    assert labels["3.jpg"]["dog"] == labels["held-out/1.jpg"]["cat"] == (1.0, "human")


def test_edits_that_concern_no_training_image_train_nothing(finished):
    others = TRAINING.replace("Ada", "Bo"), "held-out/2.jpg,bus,0,,\n", HELD_OUT.replace("cat,1", "cat,0")
    correct(finished, *others)
    assert run_once(finished) == SHOWN


def test_what_was_crossed_out_is_not_exported(finished):
    labels = exported(finished, "--no-corrections", "--threshold", "0")
    assert "bus" in labels["held-out/2.jpg"]  # every class has at least the probability 0
    labels = exported(finished, "--threshold", "0")
    assert "bus" not in labels["held-out/2.jpg"] and "cat" in labels["held-out/2.jpg"]


def test_an_edited_file_is_noticed_before_it_is_read(finished):
    correct(finished, HELD_OUT)
    result = cutsew(finished, "labels", "results/tiny/default", "labels.json", "--format", "coco")
    assert "audit.csv has changed since these corrections were read; run snakemake" in result.stderr


def test_training_goes_back_when_no_training_image_is_corrected_any_more(finished):
    assert run_once(finished) == {"corrections": 1, **TRAINED}
    result = json.loads(cutsew(finished, "audit", "results/tiny/default", "--json").stdout)
    assert [row["stage"] for row in result["stages"] if row["split"] == "train"][-2:] == ["refined", "final"]
    assert "overridden" not in {row["stage"] for row in result["stages"]}  # the file still lies there


def test_a_variant_whose_corrections_train_nothing_shares_the_training(finished):
    finished.edit(labels={"overrides": None}, runs={"audited": {"labels": {"overrides": "audit.csv"}}})
    assert run_once(finished) == {"corrections": 1, "labels_table": 2, "report": 2}
    assert exported(finished) != {} and not (finished.results / "audited" / "adapter.safetensors").exists()
    assert "source" not in (finished.folder / "labels.json").read_text()
    result = cutsew(finished, "labels", "results/tiny/audited", "labels.json", "--format", "coco")
    assert "1 set or crossed out by a human" in result.stdout


def test_without_a_student_they_still_win(finished):
    with_student = finished.settings
    finished.settings = override(with_student, {"student.kind": "none"})
    correct(finished, HELD_OUT, TRAINING)
    planned = finished.snakemake("--dry-run")
    assert "no student is trained" in planned.stderr
    assert run_once(finished) == {"corrections": 1, "thresholds": 1, "labels_table": 1, "evaluate": 1, "report": 1}
    labels = exported(finished)
    assert labels["3.jpg"]["dog"] == labels["held-out/1.jpg"]["cat"] == (1.0, "human")
    finished.settings = with_student


def test_images_that_are_gone_are_named_with_their_line(finished):
    correct(finished, HELD_OUT, "gone.jpg,cat,1,,\n")
    done = finished.snakemake()
    assert done.returncode != 0
    assert "audit.csv, line 3, column image: 'gone.jpg'" in done.stderr + done.stdout
