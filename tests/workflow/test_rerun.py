"""What reruns when: one edit, one run, the jobs that it took."""

import copy
import csv
import json
import os

import pandas as pd
import pytest
from workflow_run import draw_image

pytestmark = pytest.mark.workflow

AFTER_TRAIN = {"train": 1, "predict": 1, "thresholds": 1, "labels_table": 1, "evaluate": 1, "report": 1}
AFTER_CORRECT = {"correct": 1, **AFTER_TRAIN}
AFTER_FUSE = {"fuse": 1, **AFTER_CORRECT}
AFTER_SCORE = {"score": 1, "select": 1, **AFTER_FUSE}
ENCODE = {"encode": 2, "seal": 1}


def test_everything_runs_once(workflow):
    everything = {
        "manifest": 1,
        "truth": 1,
        "text": 1,
        **ENCODE,
        **AFTER_SCORE,
    }
    assert workflow.run() == everything


def test_nothing_edited_nothing_runs(workflow):
    done = workflow.snakemake()
    assert done.returncode == 0 and "Nothing to be done" in done.stderr + done.stdout


def test_references_are_trained_beside_and_nothing_else(workflow):
    workflow.edit(references={"kinds": ["zero_shot", "single_positive"]})
    sibling = {"reference_labels": 1, "reference_train": 2, "reference_predict": 2}
    assert workflow.run() == {**sibling, "evaluate": 1, "report": 1}
    stages = list(pd.read_csv(workflow.results / "default" / "metrics.csv")["stage"])
    assert stages[-2:] == ["reference_zero_shot", "reference_single_positive"]


def test_true_labels_never_reach_training(workflow):
    run = "results/tiny/default"
    made_from = {}
    for row in csv.DictReader(workflow.snakemake("--detailed-summary").stdout.splitlines(), delimiter="\t"):
        made_from[row["output_file"]] = [name for name in row["input-file(s)"].split(",") if name]

    def ancestors(name):
        result, waiting = set(), [name]
        while waiting:
            name = waiting.pop()
            if name not in result:
                result.add(name)
                waiting.extend(made_from.get(name, []))
        return result

    for adapter in (f"{run}/adapter.safetensors", f"{run}/references/zero_shot/adapter.safetensors"):
        before = ancestors(adapter)
        assert {f"{run}/logits.zarr/zarr.json", f"{run}/images.parquet"} <= before
        assert not [name for name in before if "truth.parquet" in name or "truth" in name or "single" in name]
    assert f"{run}/truth.parquet" in ancestors(f"{run}/references/single_positive/adapter.safetensors")
    assert f"{run}/truth.parquet" in made_from[f"{run}/metrics.csv"]


def test_tiles_and_the_teachers_help_train_nothing(workflow):
    workflow.edit(references={"kinds": []}, predict={"ensemble": "teacher", "tiles": True})
    assert workflow.run() == {"ensemble": 1, "tiles": 1, "labels_table": 1, "evaluate": 1, "report": 1}
    stages = list(pd.read_csv(workflow.results / "default" / "metrics.csv")["stage"])
    assert stages[-3:] == ["student", "tiles", "ensemble"]


def test_helpers_are_left_out_again(workflow):
    workflow.edit(predict={"ensemble": "none", "tiles": False})
    assert workflow.run() == {"labels_table": 1, "evaluate": 1, "report": 1}


# The table "What reruns when", row by row. Each row edits one thing on top of those before it and really runs; work
# that a row left undone would show in the next one.
ROWS = {
    "a metric": ({"evaluate__threshold": 0.4}, {"thresholds": 1, "labels_table": 1, "evaluate": 1, "report": 1}),
    "maps": ({"explain": {"kind": "maps", "num_maps": 2, "num_embeddings": 4}}, {"explain": 1, "report": 1}),
    "no maps": ({"explain": {"kind": "none"}}, {"report": 1}),
    "p": ({"sew__p": 0.5}, AFTER_TRAIN),
    "q": ({"sew__q": 0.4}, AFTER_TRAIN),
    "L": ({"sew__max_overlays": 2}, AFTER_TRAIN),
    "lr": ({"train__lr_adapter": 0.002}, AFTER_TRAIN),
    "epochs": ({"train__epochs": 2}, AFTER_TRAIN),
    "EM": ({"train__em_weight": 0.5}, AFTER_TRAIN),
    "k": ({"select__top_k": 3}, {"select": 1, **AFTER_TRAIN}),
    "beta": ({"correct__beta": 2}, AFTER_CORRECT),
    "correction rule": ({"correct__rule": "linear"}, AFTER_CORRECT),
    "alpha": ({"fuse__alpha": 0.5}, AFTER_FUSE),
    "fusion rule": ({"fuse": {"rule": "gated"}}, AFTER_FUSE),
    "a prompt": ({"prompts": {"templates": ["a picture of a {class}"]}}, {"text": 1, **AFTER_SCORE}),
    "a class name": ({"classes": ["cat", "dog", "bus", "boat"]}, {"text": 1, "truth": 1, **AFTER_SCORE}),
    "M up": ({"cut__passes": 4}, {"encode_crops": 2, "seal": 1, **AFTER_SCORE}),
    "M down": ({"cut__passes": 2}, {"seal": 1, **AFTER_SCORE}),
    "crop area": ({"cut__area": [0.2, 0.3]}, {**ENCODE, **AFTER_SCORE}),
    "image size": ({"teacher__open_clip__image_size": 64}, {"text": 1, **ENCODE, **AFTER_SCORE}),
    "how the work is done": ({"compute": {"device": "cpu", "batch_size": 5, "checkpoint_seconds": 0}}, {}),
}


@pytest.mark.parametrize(("edit", "jobs"), ROWS.values(), ids=ROWS)
def test_an_edit_reruns_what_depends_on_it(workflow, edit, jobs):
    if "classes" in edit:
        truth = workflow.folder / "truth.csv"
        truth.write_text(truth.read_text().replace("3.jpg,", "3.jpg,boat;"))
    workflow.edit(**edit)
    assert workflow.run() == jobs


@pytest.mark.parametrize(
    "edit",
    [{"sew__p": 0.6}, {"teacher__open_clip__image_size": 96}, {"cut__passes": 3}],
    ids=["p", "size", "M"],
)
def test_an_edit_that_is_taken_back_runs_nothing(workflow, edit):
    before = copy.deepcopy(workflow.settings)
    workflow.edit(**edit)
    assert workflow.run("--dry-run")
    workflow.settings = before
    assert workflow.run("--dry-run") == {}


def test_a_manifest_rebuilt_with_equal_content_reruns_nothing_else(workflow):
    assert workflow.run("--forcerun", "results/tiny/default/images.parquet") == {"manifest": 1}
    assert workflow.run("--dry-run") == {}


def test_touched_images_rerun_the_manifest_alone(workflow):
    for image in (workflow.folder / "images").rglob("*.jpg"):
        os.utime(image)
    assert workflow.run() == {"manifest": 1}
    assert workflow.run("--dry-run") == {}


def test_a_setting_of_the_manifest_that_leaves_the_images_as_they_are_reaches_the_page(workflow):
    workflow.edit(dataset__on_bad_image="skip")
    assert workflow.run() == {"manifest": 1, "report": 1}
    assert workflow.run() == {}


def test_files_that_are_no_images_rerun_the_page_that_counts_them(workflow):
    page = workflow.results / "default" / "report.html"
    assert "1 unreadable" not in page.read_text()
    workflow.folder.joinpath("images", "broken.jpg").write_bytes(b"none")
    assert workflow.run() == {"manifest": 1, "report": 1}
    assert "1 unreadable" in page.read_text()
    assert workflow.run() == {}


def test_a_moved_folder_of_images_reruns_what_holds_their_paths(workflow):
    workflow.folder.joinpath("images").rename(workflow.folder / "photos")
    workflow.edit(dataset__root="photos")
    assert workflow.run() == {"manifest": 1, "truth": 1, "labels_table": 1, "evaluate": 1, "report": 1}
    assert pd.read_csv(workflow.results / "default" / "labels.csv")["path"].str.startswith("photos/").all()
    workflow.folder.joinpath("photos").rename(workflow.folder / "images")
    workflow.edit(dataset__root="images")
    assert workflow.run() == {"manifest": 1, "truth": 1, "labels_table": 1, "evaluate": 1, "report": 1}


def test_new_images_encode_the_shards_that_they_fall_in(workflow):
    chunk = workflow.results / "default" / "views.zarr" / "crops" / "c" / "0" / "0" / "0"
    before = chunk.stat().st_mtime_ns
    for i in range(1000, 1020):  # 29 images in all: shard 1 is filled up, 2 and 3 are new
        draw_image(workflow.folder / "images" / f"a{i}.jpg", i)
    jobs = workflow.run()
    assert jobs == {"manifest": 1, "truth": 1, "encode": 3, "seal": 1, **AFTER_SCORE}
    assert chunk.stat().st_mtime_ns == before
    assert [embedded(workflow, shard) for shard in (1, 2, 3)] == [7, 8, 5]
    assert workflow.run() == {}


def test_removed_images_embed_none(workflow):
    """All shards after the gap are made again, from what is known of their images."""
    for i in (3, 1003):
        (workflow.folder / "images" / (f"{i}.jpg" if i == 3 else f"a{i}.jpg")).unlink()
    truth = workflow.folder / "truth.csv"
    truth.write_text("".join(line for line in truth.open() if not line.startswith("3.jpg")))
    jobs = workflow.run()
    assert jobs == {"manifest": 1, "truth": 1, "encode": 4, "seal": 1, **AFTER_SCORE}
    assert [embedded(workflow, shard) for shard in range(4)] == [0, 0, 0, 0]
    assert workflow.run() == {}


def embedded(workflow, shard):
    record = workflow.results / "default" / "views.records" / f"0-{shard}.json"
    return json.loads(record.read_text())["work"]["embedded"]
