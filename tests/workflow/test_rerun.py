"""What reruns when: one edit, one run, the jobs that it took."""

import copy
import csv
import os

import pytest
from conftest import draw_photo

pytestmark = pytest.mark.workflow

AFTER_TRAIN = {"train": 1, "predict": 1, "evaluate": 1, "report": 1}
AFTER_CORRECT = {"correct": 1, **AFTER_TRAIN}
AFTER_FUSE = {"fuse": 1, **AFTER_CORRECT}
AFTER_SCORE = {"score": 1, "select": 1, **AFTER_FUSE}


def test_everything_runs_once(workflow):
    everything = {
        "manifest": 1,
        "truth": 1,
        "text": 1,
        "encode_photos": 2,
        "encode_crops": 2,
        "seal": 1,
        **AFTER_SCORE,
    }
    assert workflow.run() == everything


def test_nothing_edited_nothing_runs(workflow):
    done = workflow.snakemake()
    assert done.returncode == 0 and "Nothing to be done" in done.stderr + done.stdout


def test_true_labels_never_reach_training(workflow):
    made_from = {}
    for row in csv.DictReader(workflow.snakemake("--detailed-summary").stdout.splitlines(), delimiter="\t"):
        made_from[row["output_file"]] = [name for name in row["input-file(s)"].split(",") if name]
    waiting, ancestors = ["results/tiny/default/adapter.safetensors"], set()
    while waiting:
        name = waiting.pop()
        if name not in ancestors:
            ancestors.add(name)
            waiting.extend(made_from.get(name, []))
    assert "results/tiny/default/logits.zarr/zarr.json" in ancestors
    assert "results/tiny/default/images.parquet" in ancestors
    assert not [name for name in ancestors if "labels.parquet" in name or "truth" in name]
    assert "results/tiny/default/labels.parquet" in made_from["results/tiny/default/metrics.csv"]


@pytest.mark.parametrize(
    ("edit", "jobs"),
    [
        ({"fuse__alpha": 0.5}, AFTER_FUSE),
        ({"correct__beta": 2}, AFTER_CORRECT),
        ({"select__top_k": 3}, {"select": 1, **AFTER_TRAIN}),
        ({"sew__p": 0.5}, AFTER_TRAIN),
        ({"train__lr_adapter": 0.002}, AFTER_TRAIN),
        ({"evaluate__threshold": 0.4}, {"evaluate": 1, "report": 1}),
        ({"prompts": {"templates": ["a picture of a {class}"]}}, {"text": 1, **AFTER_SCORE}),
        ({"cut__passes": 4}, {"encode_crops": 2, "seal": 1, **AFTER_SCORE}),
        ({"cut__area": [0.2, 0.3]}, {"encode_photos": 2, "encode_crops": 2, "seal": 1, **AFTER_SCORE}),
        ({"compute": {"device": "cpu", "batch_size": 5}}, {}),
    ],
    ids=["alpha", "beta", "k", "p", "lr", "metric", "prompt", "M", "area", "batch"],
)
def test_an_edit_plans_what_depends_on_it(workflow, edit, jobs):
    good = copy.deepcopy(workflow.settings)
    workflow.edit(**edit)
    assert workflow.run("--dry-run") == jobs
    workflow.settings = good
    assert workflow.run("--dry-run") == {}


@pytest.mark.parametrize(
    ("edit", "jobs"),
    [
        ({"cut__passes": 4, "fuse__alpha": 0.5}, {"encode_crops": 2, "seal": 1, **AFTER_SCORE}),
        ({"cut__passes": 2}, {"seal": 1, **AFTER_SCORE}),
        ({"classes": ["cat", "dog", "bus", "boat"]}, {"text": 1, "truth": 1, **AFTER_SCORE}),
    ],
    ids=["M-up-and-alpha", "M-down", "class"],
)
def test_an_edit_reruns_what_it_plans_and_then_nothing(workflow, edit, jobs):
    if "classes" in edit:
        truth = workflow.folder / "truth.csv"
        truth.write_text(truth.read_text().replace("3.jpg,", "3.jpg,boat;"))
    workflow.edit(**edit)
    assert workflow.run() == jobs
    assert workflow.run() == {}


def test_touched_photos_rerun_the_manifest_alone(workflow):
    for photo in (workflow.folder / "photos").rglob("*.jpg"):
        os.utime(photo)
    assert workflow.run() == {"manifest": 1}
    assert workflow.run() == {}


def test_new_photos_encode_the_shards_that_they_fall_in(workflow):
    chunk = workflow.results / "default" / "views.zarr" / "crops" / "c" / "0" / "0" / "0"
    before = chunk.stat().st_mtime_ns
    for i in (1000, 1001):
        draw_photo(workflow.folder / "photos" / f"a{i}.jpg", i)
    jobs = workflow.run()
    assert jobs == {"manifest": 1, "truth": 1, "encode_photos": 1, "encode_crops": 1, "seal": 1, **AFTER_SCORE}
    assert chunk.stat().st_mtime_ns == before
    assert workflow.run() == {}
