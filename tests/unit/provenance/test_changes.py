"""What is said of an edit, in words."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from recorded_run import make_label, make_runs

from cutsew.data.listing import listing_fingerprint
from cutsew.pipeline.outputs import required_stages
from cutsew.pipeline.plan import Plan
from cutsew.provenance import change_reporter, changes
from cutsew.provenance.change_reporter import ChangeReporter, jobs_of
from cutsew.provenance.changes import Job, describe
from cutsew.provenance.lineage import read_record
from cutsew.provenance.setting_changes import image_differences, setting_differences
from cutsew.storage.file_digests import file_digest

RAW = {
    "classes": ["cat", "dog", "bus"],
    "dataset": {"name": "tiny", "kind": "demo"},
    "runs": {"other": {"fuse.alpha": 0.5}},
}
AFTER_FUSE = ("fuse", "correct", "train", "predict", "thresholds", "evaluate", "report")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A base run and a variant whose records hold the settings of RAW."""
    folder = tmp_path_factory.mktemp("changes")
    make_runs(folder)
    plan = Plan(RAW)
    for record in folder.joinpath("results", "tiny").rglob("*.json"):
        content = json.loads(record.read_text())
        if "stage" in content and "references" not in record.parts:
            stage, run = content["stage"], record.relative_to(folder / "results" / "tiny").parts[0]
            content["settings"] = json.loads(plan.params(run, stage))
            content["version"] = content["settings"]["version"]
            record.write_text(json.dumps(content))
    return folder


@pytest.fixture(autouse=True)
def here(home, monkeypatch):
    monkeypatch.chdir(home)


def jobs_for(plan, rerun=(), run="default", **facts):
    """Lay out the jobs of all stages of all runs, those named as about to run."""
    jobs = []
    for name, config in plan.runs.items():
        for stage in sorted(required_stages(config)):
            if plan.source_run(name, stage) == name:
                runs = stage in rerun and name == run
                jobs.append(Job(stage, name, runs, **(facts if runs and stage == rerun[0] else {})))
    return jobs


def said(raw, rerun, run="default", **facts):
    plan = Plan(raw)
    return describe(plan, jobs_for(plan, rerun, run, **facts))


@pytest.mark.parametrize(
    ("change", "rerun", "line"),
    [
        ({"fuse": {"alpha": 0.3}}, AFTER_FUSE, "fuse.alpha 0.1 -> 0.3"),
        ({"classes": ["cat", "dog", "boat"]}, ("text", "score"), "classes: + boat, - bus"),
        ({"classes": ["dog", "cat", "bus"]}, ("text", "score"), "classes: another order"),
        ({"prompts": {"names": {"cat": "kitten"}}}, ("text",), "prompts.names.cat added: kitten"),
        ({"cut": {"passes": 30}}, ("encode", "seal"), "cut.passes 20 -> 30"),
        ({"train": {"lr_adapter": 0.01}}, ("train",), "train.lr_adapter 0.001 -> 0.01"),
    ],
)
def test_an_edited_setting_is_told_with_both_values(change, rerun, line):
    lines = said({**RAW, "runs": {}} | change, rerun)
    assert lines[0] == f"changed: {line}"
    assert len(lines) == 2 and lines[1].startswith("will run: ") and "; kept: demo_world, " in lines[1]


def test_jobs_are_counted_by_stage():
    plan = Plan({**RAW, "runs": {}, "fuse": {"alpha": 0.3}})
    jobs = [*jobs_for(plan, AFTER_FUSE), Job("encode", "default", needed=False), Job("fuse", "default", needed=True)]
    line = describe(plan, jobs)[-1]
    assert line.startswith("will run: fuse x2, correct, train, predict, thresholds, evaluate, report (8 jobs); kept: ")
    assert "encode x2" in line


def test_a_variants_edit_names_the_run():
    raw = {**RAW, "runs": {"other": {"fuse.alpha": 0.7}}}
    assert said(raw, AFTER_FUSE, "other")[0] == "changed: fuse.alpha 0.5 -> 0.7 (run other)"


def test_a_new_variant_is_new_and_not_compared():
    raw = {**RAW, "runs": {**RAW["runs"], "third": {"fuse.alpha": 0.9}}}
    assert said(raw, AFTER_FUSE, "third")[0] == "changed: run third: new"


def test_a_raised_version_is_told(monkeypatch):
    stage = changes.STAGES["train"]
    monkeypatch.setitem(changes.STAGES, "train", replace(stage, version=stage.version + 1))
    assert f"changed: stage train: version {stage.version} -> {stage.version + 1}" in said(
        {**RAW, "runs": {}}, ("train", "predict")
    )


def test_nothing_is_said_at_a_first_run_or_of_unfinished_work(tmp_path, monkeypatch):
    assert said({**RAW, "fuse": {"alpha": 0.3}}, ()) == []
    assert said(RAW, ("evaluate", "report")) == []
    monkeypatch.chdir(tmp_path)
    assert said(RAW, AFTER_FUSE) == []


@pytest.mark.parametrize(
    ("stage", "file", "line"),
    [
        ("truth", "truth.csv", "true labels edited (truth.csv)"),
        ("evaluate", "my.csv", "evaluate: input edited (my.csv)"),
    ],
)
def test_an_edited_file_of_the_user_is_named(stage, file, line):
    assert said(RAW, (stage,), updated=(Path(file),))[0] == f"changed: {line} (run default)"


def test_a_newer_file_of_the_user_with_its_old_content_is_not_edited(home):
    truth, record = home / "truth.csv", home / "results" / "tiny" / "default" / "truth.json"
    truth.write_text("path,labels\n")
    before = record.read_text()
    content = json.loads(before)
    content["inputs"]["../../../truth.csv"] = file_digest(truth)
    record.write_text(json.dumps(content))
    same = said(RAW, ("truth",), updated=(Path("truth.csv"),))
    truth.write_text("path,labels\na.jpg,dog\n")
    edited = said(RAW, ("truth",), updated=(Path("truth.csv"),))
    record.write_text(before)
    truth.unlink()
    assert same[0].startswith("nothing has changed, but the results of truth are older")
    assert edited[0] == "changed: true labels edited (truth.csv) (run default)"


def test_a_job_of_many_is_compared_with_its_own_record():
    """The folder of a shard's records may hold thousands: it is not listed for each job."""
    records = sorted(Path("results/tiny/default/views.records").glob("*.json"))
    first, local_values = records[0], records[-1]
    before = local_values.read_text()
    content = json.loads(before)
    content["settings"]["cut"]["seed"] = 5
    local_values.write_text(json.dumps(content))
    lines = [said(RAW, ("encode",), makes=(record,))[:1] for record in (first, local_values)]
    local_values.write_text(before)
    assert first != local_values and lines == [[], ["changed: cut.seed 5 -> 9 (run default)"]]


def test_replaced_weights_are_named(tmp_path):
    weights = tmp_path / "vit.pt"
    weights.touch()
    raw = {**RAW, "runs": {}, "teacher": {"open_clip": {"pretrained": str(weights)}}}
    plan = Plan(raw)
    assert [plan.weights("default", stage) for stage in ("text", "encode", "train")] == [[weights], [weights], []]
    config = weights.with_name("open_clip_config.json")
    config.touch()
    assert plan.weights("default", "encode") == [weights, config]
    config.unlink()
    record = Path("results/tiny/default/text.json")
    before = record.read_text()
    record.write_text(json.dumps(json.loads(before) | {"settings": json.loads(plan.params("default", "text"))}))
    lines = said(raw, ("text",), other_params=True)
    record.write_text(before)
    assert lines[0] == f"changed: weights replaced ({weights})"


def test_every_shard_of_sharded_weights_is_watched(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    shards = [tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    shards[0].touch()
    index.write_text(json.dumps({"weight_map": {"a": shards[1].name, "b": shards[0].name, "c": shards[0].name}}))
    plan = Plan({**RAW, "runs": {}, "teacher": {"open_clip": {"pretrained": str(index)}}})
    assert plan.weights("default", "encode") == [index, shards[0]]
    shards[1].touch()
    assert plan.weights("default", "encode") == [index, *shards]
    index.write_text("[]")
    assert plan.weights("default", "encode") == [index]


def test_corrections_that_are_new_or_edited_are_named(tmp_path):
    audit = tmp_path / "audit.csv"
    audit.write_text("image,class,present\ntrain_00001,dog,1\n")
    raw = {**RAW, "runs": {}, "labels": {"overrides": str(audit)}}
    assert said(raw, ("corrections", "override"))[0] == f"changed: corrections added ({audit})"
    record = Path("results/tiny/default/corrections.json")
    record.write_text('{"stage": "corrections", "version": 1, "inputs": {}, "outputs": {}}')
    lines = said(raw, ("corrections",), updated=(audit,))
    record.unlink()
    assert f"changed: corrections edited ({audit})" in lines


def test_other_inputs_are_named():
    reads = tuple(Path("results/tiny/default", n) for n in ("images.parquet", "overridden.zarr/zarr.json"))
    line = said(RAW, ("train",), reads=(*reads, Path("results/tiny/default/patches.parquet")), other_inputs=True)[0]
    assert line == "changed: train reads overridden.zarr instead of pseudo.zarr (run default)"


def test_results_that_are_only_newer_are_taken_for_a_copy(monkeypatch):
    monkeypatch.setenv("CUTSEW_COMMAND", "snakemake --cores all --configfile mine.yaml")
    newer = (Path("results/tiny/default/logits.zarr/zarr.json"),)
    lines = said(RAW, AFTER_FUSE, updated=newer)
    assert lines[0].startswith("nothing has changed, but the results of fuse are older than what they were made from")
    assert lines[0].endswith("snakemake --cores all --configfile mine.yaml --touch")
    assert lines[1].startswith("will run: fuse, ")


def test_results_that_were_recomputed_are_not_taken_for_a_copy(home):
    base = home / "results" / "tiny" / "default"
    kept = {
        path: path.read_bytes()
        for path in [base / "fused.json", *base.joinpath("fused.zarr").rglob("*")]
        if path.is_file()
    }
    settings = json.loads(base.joinpath("fused.json").read_text())["settings"]
    make_label("fuse", base, "fused.zarr", [base / "logits.zarr" / "zarr.json"], 3)
    record = json.loads(base.joinpath("fused.json").read_text())
    base.joinpath("fused.json").write_text(json.dumps(record | {"settings": settings}))
    lines = said(RAW, ("correct",), updated=(base / "fused.zarr" / "zarr.json",))
    for path, content in kept.items():
        path.write_bytes(content)
    assert "changed: results/tiny/default/pseudo.zarr: stale: made from an earlier fused.zarr" in lines
    assert not any("--touch" in line for line in lines)


def test_lost_notes_of_snakemake_hide_no_edit():
    """Without .snakemake, snakemake compares no params: what an edit leaves as it was is named, with the command."""
    plan = Plan({**RAW, "runs": {}, "fuse": {"alpha": 0.3}})
    target = Path("results/tiny/default/fused.zarr/zarr.json")
    jobs = [replace(job, unknown=True, makes=(target,) if job.stage == "fuse" else ()) for job in jobs_for(plan)]
    lines = describe(plan, jobs)
    assert lines[0] == "changed, but not rerun: fuse.alpha 0.1 -> 0.3" and len(lines) == 2
    assert lines[1].endswith(f": snakemake --cores all --forcerun {target}")
    assert describe(plan, jobs_for(plan)) == []


def test_long_values_and_lists_are_cut_and_credentials_left_out():
    old = {"a": {"x": "o" * 99, "url": "https://me:secret@host/a", "names": list("abcdefghij")}}
    new = {"a": {"x": "n" * 99, "url": "https://me:secret2@host/b", "names": list("klmnopqrst")}}
    lines = list(setting_differences(old, new))
    assert lines[0] == f"a.x {'o' * 37}... -> {'n' * 37}..."
    assert lines[1] == "a.url https://host/a -> https://host/b"
    assert lines[2] == "a.names: + k, + l, + m, + n, + o, + p, + q, + r, and 12 more"


def test_settings_that_come_and_go_with_another_are_not_told():
    old, new = {"fuse": {"rule": "max", "alpha": 0.1}}, {"fuse": {"rule": "gated", "gate": 0.01}}
    assert list(setting_differences(old, new)) == ["fuse.rule max -> gated"]
    assert list(setting_differences({"a": {}}, {"a": {"b": 1, "c": None}})) == ["a.b added: 1"]
    assert list(setting_differences({"a": {"b": 1}}, {"a": {}})) == ["a.b removed: 1"]
    assert list(setting_differences({"a": {}}, {"a": {"b": None, "c": None}})) == ["a.b added: null"]


@pytest.fixture
def images(tmp_path):
    """A folder of four images of which one was skipped, and its manifest."""
    names = ["a.jpg", "b.jpg", "c.jpg", "bad.jpg"]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).write_bytes(name.encode())
    paths = [str(tmp_path / "images" / name) for name in names[:3]]
    table = pd.DataFrame({"id": names[:3], "path": paths, "bytes": 5})
    table.to_parquet(tmp_path / "images.parquet")
    (tmp_path / "skipped.csv").write_text(f"path,reason\n{tmp_path / 'images' / 'bad.jpg'},not an image\n")
    (tmp_path / "images.json").write_text('{"stage": "manifest", "inputs": {}, "outputs": {}}')
    return tmp_path


def differences(images):
    config = Plan({**RAW, "runs": {}, "dataset": {"kind": "folder", "root": str(images / "images")}}).config
    listing_fingerprint(config)
    return list(image_differences(config, images / "images.parquet", read_record(images / "images.json")))


def test_images_are_counted(images):
    (images / "images" / "d.jpg").write_bytes(b"d")
    (images / "images" / "e.jpg").write_bytes(b"e")
    (images / "images" / "a.jpg").unlink()
    (images / "images" / "b.jpg").write_bytes(b"another")
    assert differences(images) == ["2 images added, 1 removed, 1 edited"]


def test_one_image(images):
    (images / "images" / "a.jpg").unlink()
    assert differences(images) == ["1 image removed"]


def test_touched_images_are_told_apart(images):
    os.utime(images / "images" / "a.jpg")
    (line,) = differences(images)
    assert line.startswith("images have other times, but the same names and sizes")


def test_images_are_not_listed_a_second_time(images, monkeypatch):
    config = Plan({**RAW, "runs": {}, "dataset": {"kind": "folder", "root": str(images / "images")}}).config
    listing_fingerprint(config)
    monkeypatch.setattr("cutsew.data.listing._line", lambda *_: pytest.fail("an image is looked at"))
    monkeypatch.setattr("cutsew.data.folder.scan", lambda *_, **__: pytest.fail("the folder is listed"))
    record = read_record(images / "images.json")
    assert len(list(image_differences(config, images / "images.parquet", record))) == 1


def graph(*jobs):
    """Snakemake's graph of jobs, as far as it is read."""
    reason = SimpleNamespace(
        no_metadata=True, updated_input={"a", "b"}, updated_input_run={"b"}, input_changed=[], params_changed="x"
    )
    return SimpleNamespace(
        jobs=[
            SimpleNamespace(rule=SimpleNamespace(name=name), wildcards=wild, input=["a"], output=[])
            for name, wild in jobs
        ],
        needrun=lambda job: job.rule.name != "kept_text",
        reason=lambda _: reason,
    )


def test_the_graphs_jobs_are_read_by_stage_also_with_a_modules_prefix():
    wild = {"dataset": "tiny", "run": "default"}
    names = ["encode_crops", "mine_reference_train", "kept_text", "train"]
    dag = graph(*((name, wild) for name in names), ("all", {}), ("train", {"dataset": "else", "run": "default"}))
    jobs = list(jobs_of(dag, Plan(RAW)))
    assert [job.stage for job in jobs] == ["encode", "reference_train", "text", "train"]
    assert [job.needed for job in jobs] == [True, True, False, True]
    assert jobs[0].updated == (Path("a"),) and jobs[0].other_params and not jobs[0].other_inputs


def table():
    record = logging.makeLogRecord({"msg": "Job stats"})
    record.event = SimpleNamespace(name="RUN_INFO")
    return record


@pytest.mark.parametrize(("dry", "after"), [(False, [1, 1, 1]), (True, [0, 1, 1])])
def test_it_is_printed_once_and_at_the_end_of_a_dry_run(monkeypatch, dry, after):
    monkeypatch.setattr(change_reporter, "describe", lambda *_: ["changed: all"])
    lines = []
    reporter = ChangeReporter(Plan(RAW), graph, lambda: dry, lines.append)
    reporter.emit(logging.makeLogRecord({"msg": "something else"}))
    assert lines == []
    counts = []
    for _ in after:
        reporter.emit(table())
        counts.append(len(lines))
    assert counts == after


@pytest.mark.parametrize("dry", [False, True])
def test_it_is_printed_where_there_is_nothing_to_do(monkeypatch, dry):
    monkeypatch.setattr(change_reporter, "describe", lambda *_: ["changed, but not rerun: all"])
    lines = []
    nothing = logging.makeLogRecord({"msg": "Nothing to be done (all requested files are present and up to date)."})
    ChangeReporter(Plan(RAW), graph, lambda: dry, lines.append).emit(nothing)
    assert len(lines) == 1


def test_a_fault_in_the_words_stops_no_run(monkeypatch):
    monkeypatch.setattr(change_reporter, "describe", lambda *_: 1 / 0)
    ChangeReporter(Plan(RAW), graph, lambda: False, pytest.fail).emit(table())
