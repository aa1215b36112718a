"""Why tells what an artifact was made from, up to the images."""

import json

import pytest
import typer
from recorded_run import make_runs
from typer.testing import CliRunner

from cutsew.commands.why import why
from cutsew.provenance.lineage import ProvenanceIndex
from cutsew.provenance.record import Record
from cutsew.provenance.tree import ProvenanceNode, explain, lines


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("why"))


def call(*arguments):
    app = typer.Typer()
    app.command()(why)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def tree(base, name):
    return list(lines(explain(base / name, ProvenanceIndex()), lambda path: str(path).replace(f"{base.parent}/", "")))


def everything(cause):
    yield cause
    for source in cause.causes:
        yield from everything(source)


def test_a_short_tree_is_drawn(base):
    assert tree(base, "images.parquet") == [
        "default/images.parquet: manifest v1",
        "|  {dataset: {kind: demo}}",
        "|- default/world/ImageSets/Main/train.txt: demo_world v1",
        "|     {dataset: {demo: {seed: 0}}}",
        "|- default/world/ImageSets/Main/val.txt: see above",
        "`- default/world: images (4 train, 2 test, 0 skipped)",
    ]


def test_images_lead_to_their_download(tmp_path):
    base = make_runs(tmp_path)
    record = json.loads((base / "images.json").read_text())
    record["settings"]["dataset"]["root"] = "data/voc"
    (base / "images.json").write_text(json.dumps(record))
    for name, root in (("other", "data/voc"), ("default", "data/coco")):
        result = Record("download", 1, {"dataset": {"root": root}}, facts={"downloaded": True, "archives": {}})
        result.write(base.with_name(name) / "download.json", {})
    drawn = tree(base, "images.parquet")
    assert drawn[-3:] == [
        "`- default/world: images (4 train, 2 test, 0 skipped)",
        "   `- other/download.json: download v1",
        "         {dataset: {root: data/voc}}",
    ]
    record = json.loads((base.with_name("other") / "download.json").read_text())
    (base.with_name("other") / "download.json").write_text(json.dumps(record | {"facts": {"downloaded": False}}))
    assert tree(base, "images.parquet")[-1] == "`- default/world: images (4 train, 2 test, 0 skipped)"


def test_encoding_jobs_with_the_same_settings_are_one_line(base):
    (line,) = [line for line in tree(base, "views.zarr") if "encode" in line]
    assert line.endswith("encode v1 (and 3 more jobs with the same settings)")


def test_a_variant_leads_to_the_base_run_and_to_the_images(base):
    drawn = "\n".join(tree(base.with_name("other"), "scores.zarr"))
    drawn = drawn.replace(f"{base.parent}/", "")
    for name in (
        "other/adapter.safetensors",
        "default/patches.parquet",
        "default/images.parquet",
        "default/world: images",
    ):
        assert name in drawn
    assert "{fuse: {seed: 1}}" in drawn and "{score: {epsilon: 1.0e-06}}" in drawn


@pytest.mark.parametrize("name", ["report.html", "scores.zarr", "views.zarr", "views.zarr/crops/c/0/1/0"])
def test_each_record_is_told_once(base, name):
    records = [
        cause.facts["record"] for cause in everything(explain(base / name, ProvenanceIndex())) if cause.kind == "made"
    ]
    assert len(records) == len(set(records)) > 1


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("views.zarr/crops/c/0/1/0", "encode"),
        ("views.zarr/boxes/c/1/0/0", "encode"),
        ("views.zarr/pass/c/0", "seal"),
        ("views.zarr/zarr.json", "seal"),
        ("logits.zarr/crops/c/2/1/0", "score"),
        ("fused.zarr", "fuse"),
        ("history.csv", "train"),
        ("refined.zarr", "train"),
        ("cutsew-tiny.safetensors", "tiny_clip"),
        ("world/JPEGImages/train_00001.jpg", "demo_world"),
    ],
)
def test_files_groups_and_chunks_find_their_record(base, name, stage):
    assert explain(base / name, ProvenanceIndex()).facts["stage"] == stage


def test_a_record_of_encoding_names_the_teacher(base):
    assert any("weights: abc" in line for line in tree(base, "views.zarr/global/c/0/0"))


def test_json_holds_the_settings_in_full(base):
    done = call(base / "fused.zarr", "--json")
    top = json.loads(done.stdout)
    assert top["stage"] == "fuse" and top["settings"] == {"fuse": {"seed": 0}}
    (logits,) = top["inputs"]
    assert logits["path"].endswith("default/logits.zarr") and logits["stage"] == "score"


def test_long_settings_are_cut_and_long_lists_shortened():
    cause = ProvenanceNode(
        "x", "made", {"stage": "text", "version": 2, "settings": {"classes": list("abcdef"), "root": None}}
    )
    assert list(lines(cause)) == ["x: text v2", "   {classes: [a, b, c, d, and 2 more]}"]
    cause.facts["settings"] = {"a": "b" * 300}
    (_, line) = lines(cause)
    assert line.endswith("...") and len(line) <= 120


def test_a_source_that_no_stage_made_is_given(base):
    record = json.loads(base.joinpath("truth.json").read_text())
    record["inputs"] |= {"../../../truth.csv": "0", "../../../lost.csv": "0"}
    base.joinpath("truth.json").write_text(json.dumps(record))
    base.parents[2].joinpath("truth.csv").write_text("path,labels\n")
    drawn = tree(base, "truth.parquet")
    assert drawn[-2].endswith("truth.csv: given, no stage made it")
    assert drawn[-1].endswith("lost.csv: lost, and without a record")


def test_what_has_no_record_is_refused_in_one_line(base, tmp_path):
    stray = tmp_path / "notes.txt"
    stray.write_text("mine")
    for path, part in ((stray, "no record of how it was made"), (tmp_path / "absent", "no such file")):
        done = call(path)
        assert done.exit_code == 1 and part in str(done.exception) and "\n" not in str(done.exception)


def test_images_behind_a_url(tmp_path):
    base = make_runs(tmp_path)
    record = json.loads((base / "images.json").read_text())
    record["facts"]["root"] = "s3://bucket/voc"
    (base / "images.json").write_text(json.dumps(record))
    assert tree(base, "images.parquet")[-1] == "`- s3://bucket/voc: images (4 train, 2 test, 0 skipped)"
