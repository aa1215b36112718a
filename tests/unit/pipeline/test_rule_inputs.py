"""What the rules read, and the params that make their jobs rerun."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace as Wildcards

import pytest

from cutsew.config.loading import DEFAULT
from cutsew.pipeline import rule_inputs as inputs
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.plan import Plan

BASE = {"classes": ["cat", "dog"]}
SCORES = {"teacher.kind": "scores", "teacher.scores.file": "s.npz"}
CORRECTED = {"labels.overrides": "audit.csv"}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan(results="results", **changes):
    """Plan one run, `one`, that differs from the base run in the changes."""
    return Plan({**BASE, "runs": {"one": changes}}, Path(results))


def of(**wildcards):
    return Wildcards(run="one", **wildcards)


def write_shards(made, *rows):
    """Write shards.csv where the plan expects it."""
    table = made.on_disk("one", "manifest") / "shards.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(["shard,images,digest,listed,placed", *rows]) + "\n")
    return table


def test_an_artifact_is_in_the_folder_of_the_run_that_owns_it():
    result = plan(**{"fuse.alpha": 0.5})
    assert inputs.artifact(result, of(), "train", "model.yaml") == "results/demo/one/model.yaml"
    assert inputs.artifact(result, of(), "text", "text.zarr") == "results/demo/default/text.zarr/zarr.json"
    path = inputs.artifact(result, of(reference="supervised"), "reference_train", "references/{reference}/model.yaml")
    assert path == "results/demo/default/references/supervised/model.yaml"


def test_inputs_have_no_prefix_and_params_have_it():
    result = plan("sub/results")
    assert inputs.artifact(result, of(), "train", "model.yaml") == "results/demo/default/model.yaml"
    assert inputs.image_root(result, of()) == "sub/results/demo/default/world"


@pytest.mark.parametrize(
    ("changes", "stage", "needed"),
    [
        ({}, "demo_world", True),
        ({}, "tiny_clip", False),
        ({"dataset.demo.rebuild_teacher": True}, "tiny_clip", True),
        ({}, "select", True),
        ({"sew.kind": "none"}, "select", False),
        ({}, "tiles", False),
        ({"predict.tiles": True}, "tiles", True),
        ({"score.rule": "tagclip"}, "seal_tagclip", True),
        ({}, "seal_tagclip", False),
        ({"student.kind": "none"}, "thresholds", True),
    ],
)
def test_an_artifact_is_optional_where_the_run_does_not_need_its_stage(changes, stage, needed):
    result = plan(**changes)
    expected = [inputs.artifact(result, of(), stage, "file")] if needed else []
    assert inputs.optional_artifact(result, of(), stage, "file") == expected


@pytest.mark.parametrize("changes", [{}, SCORES])
def test_logits_are_computed_or_imported(changes):
    result = plan(**changes)
    owner = "one" if changes else "default"
    assert inputs.logits(result, of()) == f"results/demo/{owner}/logits.zarr/zarr.json"


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        ({}, ["pseudo", "pseudo", "pseudo"]),
        ({"train.labels": "fused"}, ["fused", "fused", "fused"]),
        ({"train.labels": "zero_shot"}, ["logits", "logits", "logits"]),
        ({**SCORES, "train.labels": "zero_shot"}, ["logits", "logits", "logits"]),
        ({"targets.labels_per_image": 1.5}, ["pseudo", "targets", "targets"]),
        (CORRECTED, ["pseudo", "pseudo", "overridden"]),
        ({**CORRECTED, "targets.labels_per_image": 1.5}, ["pseudo", "targets", "overridden"]),
    ],
)
def test_labels_are_those_of_the_last_stage_before(changes, files):
    result = plan(**changes)
    read = [inputs.labels(result, of(), stage) for stage in ("targets", "override", "train")]
    assert [Path(path).parent.name for path in read] == [f"{name}.zarr" for name in files]


@pytest.mark.parametrize(("labels", "file"), [("zero_shot", "logits"), ("pseudo", "pseudo")])
def test_salience_is_measured_by_zero_shot_or_pseudo_labels(labels, file):
    read = inputs.salience_labels(plan(**{"select.labels": labels}), of())
    assert read == f"results/demo/default/{file}.zarr/zarr.json"


def test_reference_students_are_trained_on_true_labels_or_zero_shot_ones():
    result = plan(**{"references.kinds": ["zero_shot", "supervised", "zero_shot"]})
    assert inputs.reference_labels(result, of(reference="zero_shot")) == inputs.logits(result, of())
    read = inputs.reference_labels(result, of(reference="supervised"))
    assert read == "results/demo/default/references/supervised/labels.zarr/zarr.json"
    scores = inputs.reference_scores(result, of())
    assert [Path(path).parts[-3] for path in scores] == ["zero_shot", "supervised"]
    assert inputs.reference_scores(plan(), of()) == []


@pytest.mark.parametrize(
    ("changes", "train", "held_out"),
    [
        ({}, "refined", "scores"),
        ({"student.kind": "none"}, "pseudo", "fused"),
        ({"predict.tiles": True}, "refined", "tiles"),
        ({"predict.tiles": True, "predict.ensemble": "teacher"}, "refined", "ensemble"),
    ],
)
def test_the_table_of_labels_has_those_of_the_last_stage_of_each_split(changes, train, held_out):
    read = inputs.last_labels(plan(**changes), of())
    assert [Path(path).parent.name for path in read] == [f"{train}.zarr", f"{held_out}.zarr"]


def test_corrections_count_unless_all_are_of_held_out_images(monkeypatch):
    assert inputs.overridden(plan(), of()) == []
    result = plan(**CORRECTED)
    assert inputs.overridden(result, of()) == ["results/demo/one/overridden.zarr/zarr.json"]
    assert inputs.training_corrections(result, of()) == ""
    assert inputs.overridden(plan(**CORRECTED, **{"student.kind": "none"}), of()) == []
    monkeypatch.setattr(Plan, "trains_on_corrections", lambda self, run: False)
    assert inputs.overridden(result, of()) == []


def test_chunks_are_those_of_each_shard_and_block():
    result = plan(**{"cut.passes": 3, "cut.passes_per_job": 2})
    assert list(inputs.shard_files(result, of(), "encode")) == []
    write_shards(result, "0,4,a,b,p", "1,2,c,d,p")
    read = list(inputs.shard_files(result, of(), "encode"))
    home = "results/demo/one"
    assert read[:7] == [
        f"{home}/views.zarr/global/c/0/0",
        f"{home}/views.zarr/crops/c/0/0/0",
        f"{home}/views.zarr/boxes/c/0/0/0",
        f"{home}/views.records/0-0.json",
        f"{home}/views.zarr/crops/c/1/0/0",
        f"{home}/views.zarr/boxes/c/1/0/0",
        f"{home}/views.records/1-0.json",
    ]
    assert len(read) == 14 and read[7] == f"{home}/views.zarr/global/c/1/0"
    assert [inputs.block_passes(result, of(block=block)) for block in "01"] == [2, 1]
    assert inputs.block_passes(result, of()) == 2


def test_without_passes_there_are_no_blocks():
    result = plan(**{"cut.passes": 0})
    write_shards(result, "0,4,a,b,p")
    assert [Path(path).parts[-3:] for path in inputs.shard_files(result, of(), "encode")][0] == ("c", "0", "0")
    assert len(list(inputs.shard_files(result, of(), "encode"))) == 2


def test_windows_are_one_block():
    result = plan(**{"cut.layout": "windows"})
    write_shards(result, "0,4,a,b,p")
    assert len(list(inputs.shard_files(result, of(), "encode"))) == 4
    assert inputs.block_passes(result, of(block="0")) == result.runs["one"].cut.num_passes > 1


def test_chunks_of_tagclip():
    result = plan(**{"score.rule": "tagclip"})
    write_shards(result, "0,4,a,b,p", "1,2,c,d,p")
    home = result.folder("one", "tagclip")
    assert list(inputs.shard_files(result, of(), "tagclip"))[3:] == [
        f"{home}/tagclip.zarr/local_score/c/1/0",
        f"{home}/tagclip.zarr/global_score/c/1/0",
        f"{home}/tagclip.records/1.json",
    ]


def test_settings_are_those_that_the_stage_reads():
    result = plan(**{"fuse.alpha": 0.5})
    assert json.loads(inputs.settings(result, of(), "fuse"))["fuse"]["alpha"] == 0.5
    assert json.loads(inputs.settings(result, of(), "select")) == {
        "version": STAGES["select"].version,
        "select": {"top_k": 200},
    }


def test_options_are_the_inputs_that_are_not_positional():
    read = {
        "images": "images.parquet",
        "logits": "a b/logits.zarr/zarr.json",
        "targets": [],
        "thresholds": ["thresholds.csv"],
        "reference": ["r/references/zero_shot/scores.zarr/zarr.json", "r/references/supervised/scores.zarr/zarr.json"],
    }
    assert inputs.options(read, ["images"]) == [
        *("--logits", "a b/logits.zarr/zarr.json"),
        *("--thresholds", "thresholds.csv"),
        *("--reference", "zero_shot=r/references/zero_shot/scores.zarr/zarr.json"),
        *("--reference", "supervised=r/references/supervised/scores.zarr/zarr.json"),
    ]
    assert inputs.options({"images": "images.parquet"}, ["images"]) == []
    final = ["default/refined.zarr/zarr.json", "default/scores.zarr/zarr.json", "default/fused.zarr/zarr.json"]
    stages = ("refined", "student", "fused")
    words = [word for stage, path in zip(stages, final, strict=True) for word in ("--stage", f"{stage}={path}")]
    assert inputs.options({"stage": final}, []) == words


def test_thresholds_are_chosen_for_every_stage_with_logits_of_its_own():
    made = ("fuse", "fused.zarr"), ("correct", "pseudo.zarr"), ("train", "refined.zarr"), ("predict", "scores.zarr")
    expected = [inputs.logits(plan(), of()), *(inputs.artifact(plan(), of(), *source) for source in made)]
    assert inputs.stages_with_thresholds(plan(), of()) == expected
    names = ["zero_shot", "fused", "pseudo", "refined", "student"]
    words = [word for name, path in zip(names, expected, strict=True) for word in ("--stage", f"{name}={path}")]
    assert inputs.options({"stage": expected}, []) == words
    changes = {"student.kind": "none", "targets.labels_per_image": "auto"}
    alone = inputs.stages_with_thresholds(plan(**changes), of())
    assert [Path(path).parent.stem for path in alone] == ["logits", "fused", "pseudo", "targets"]
    assert Path(inputs.last_labels(plan(**changes), of())[0]).parent.stem == "targets"


def test_images_are_the_demos_or_the_users():
    assert inputs.image_root(plan(), of()) == "results/demo/default/world"
    images = {"dataset.kind": "folder", "dataset.name": "demo"}
    assert inputs.image_root(plan(**images, **{"dataset.root": "images"}), of()) == "images"
    scored = plan(**{"dataset.kind": "ids", "student.kind": "none", **SCORES})
    assert inputs.image_root(scored, of()) == "."


def test_listings_change_with_the_files():
    Path("images").mkdir()
    Path("images/1.jpg").write_bytes(b"1")
    result = plan(**{"dataset.kind": "folder", "dataset.root": "images"})
    before = inputs.image_listing(result, of(), True), inputs.truth_listing(result, of(), True)
    Path("images/2.jpg").write_bytes(b"2")
    assert inputs.image_listing(result, of(), True) != before[0]
    assert inputs.truth_listing(result, of(), True) == before[1]


def test_jobs_on_nodes_take_the_main_process_listings(monkeypatch):
    Path("images").mkdir()
    Path("images/1.jpg").write_bytes(b"1")
    result = plan(**{"dataset.kind": "folder", "dataset.root": "images"})
    listed = inputs.image_listing(result, of(), True), inputs.truth_listing(result, of(), True)
    inputs.save_for_jobs(result)
    monkeypatch.setattr(inputs, "_listings", {})
    Path("images/1.jpg").unlink()
    Path("images").rmdir()
    assert (inputs.image_listing(result, of(), False), inputs.truth_listing(result, of(), False)) == listed


def test_a_job_without_saved_listings_lists_the_images():
    Path("images").mkdir()
    Path("images/1.jpg").write_bytes(b"1")
    result = plan(**{"dataset.kind": "folder", "dataset.root": "images"})
    assert inputs.image_listing(result, of(), False) == inputs.image_listing(result, of(), True)


def test_replaced_weights_change_their_digest():
    Path("own.pt").write_bytes(b"1")
    result = plan(**{"teacher.open_clip": {"model": "ViT-S-16", "pretrained": "own.pt"}})
    assert inputs.weights_digests(plan(), of(), "encode") == []
    before = inputs.weights_digests(result, of(), "encode")
    result.dataset_folder.mkdir(parents=True)
    Path("own.pt").write_bytes(b"other")
    after = inputs.weights_digests(result, of(), "encode")
    assert len(before) == len(after) == 1 and before != after
    assert (result.dataset_folder / ".weights.json").exists()


def test_digests_of_images_tell_splits_and_shards_apart():
    result = plan()
    none = (
        inputs.split_digest(result, of()),
        inputs.content_digest(result, of()),
        inputs.shard_digest(result, of(shard="0")),
    )
    assert len(set(none)) == 1 and re.fullmatch("[0-9a-f]{16}", none[0])
    table = write_shards(result, "0,4,a,b,p", "1,2,c,d,p")
    digests = (inputs.split_digest, inputs.content_digest)
    before = [digest(result, of()) for digest in digests]
    shards = [inputs.shard_digest(result, of(shard=shard)) for shard in "01"]
    assert len({*before, *shards, *none}) == 5
    write_shards(result, "0,4,a,b,p", "1,2,c,e,p")
    os.utime(table, ns=(1, 1))  # file systems may not tell two writes in a row apart
    after = [digest(result, of()) for digest in digests]
    assert after[0] != before[0] and after[1] == before[1]
    assert [inputs.shard_digest(result, of(shard=shard)) for shard in "01"] == shards


def test_a_digest_of_paths_tells_moved_images_apart():
    result = plan()
    table = write_shards(result, "0,4,a,b,p")
    before = inputs.placement_digest(result, of()), inputs.split_digest(result, of())
    write_shards(result, "0,4,a,b,q")
    os.utime(table, ns=(2, 2))
    assert inputs.placement_digest(result, of()) != before[0] and inputs.split_digest(result, of()) == before[1]


def test_a_digest_of_files_follows_the_facts_of_the_manifest_and_not_its_times():
    result = plan()
    assert inputs.files_digest(result, of()) == ""
    record = result.on_disk("one", "manifest") / "images.json"
    record.parent.mkdir(parents=True)
    digests = []
    for left, end in ((0, "now"), (0, "later"), (1, "later")):
        record.write_text(json.dumps({"facts": {"left": left}, "end": end}))
        digests.append(inputs.files_digest(result, of()))
    assert digests[0] == digests[1] != digests[2]
    record.write_text("damaged")
    assert inputs.files_digest(result, of()) == ""


@pytest.mark.parametrize(
    ("changes", "differs"),
    [({"dataset.demo.train": 100}, True), ({"fuse.alpha": 0.5}, True), ({"compute.batch_size": 3}, False)],
)
def test_a_digest_of_settings_follows_those_that_the_stages_read(changes, differs):
    assert (inputs.settings_digest(plan(**changes), of()) != inputs.settings_digest(plan(), of())) == differs


def test_shards_of_a_module_are_below_its_prefix():
    result = plan("sub/results")
    write_shards(result, "0,4,a,b,p")
    assert Path("sub/results/demo/default/shards.csv").exists()
    assert [row["images"] for row in inputs.shards(result, DEFAULT)] == ["4"]


@pytest.mark.parametrize(
    ("names", "text", "matches"),
    [
        (["a.b", "alpha=0.5+seed=1"], "a.b", True),
        (["a.b"], "axb", False),
        (["alpha=0.5+seed=1"], "alpha=0.5+seed=1", True),
        (["a", "ab"], "ab", True),
        ([], "", False),
        ([], "a", False),
    ],
)
def test_a_constraint_matches_the_names_alone(names, text, matches):
    assert bool(re.fullmatch(inputs.one_of(names), text)) == matches
