"""TagCLIP beside cutting: which jobs snakemake plans; none is run."""

from collections import Counter

import pytest
from workflow_run import JOB

from cutsew.config.loading import DEFAULT
from cutsew.pipeline.plan import Plan
from cutsew.stages.manifest import manifest

pytestmark = pytest.mark.workflow

VIT = {"model": "ViT-B-16", "pretrained": "openai", "image_size": None}


def test_both_in_one_run_share_all_but_the_scores(workflow, monkeypatch):
    workflow.edit(teacher__open_clip=VIT, runs={"patches": {"score.rule": "tagclip"}})
    monkeypatch.chdir(workflow.folder)
    images = workflow.results / "default" / "images.parquet"
    manifest(images, settings=Plan(workflow.settings).settings(DEFAULT, "manifest"))
    done = workflow.snakemake("--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = Counter(JOB.findall(done.stdout))
    duplicates = ("fuse", "correct", "train", "predict", "thresholds", "labels_table", "evaluate", "report")
    assert {rule: jobs[rule] for rule in duplicates} == dict.fromkeys(duplicates, 2)
    assert (jobs["tagclip"], jobs["seal_tagclip"], jobs["encode"]) == (2, 1, 2)
    assert jobs["text"] == jobs["seal"] == jobs["score"] == jobs["select"] == 1
    assert "--tagclip results/tiny/patches/tagclip.zarr/zarr.json" in done.stdout
