"""Gc lists what no configured run refers to, and deletes nothing else."""

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
import yaml
from recorded_run import PER_JOB, SHARD, encode, make_runs
from typer.testing import CliRunner

from cutsew.commands.gc import gc
from cutsew.config import Config
from cutsew.config.sweep import read_sweep, variants_of
from cutsew.pipeline.outputs import OUTPUTS, required_stages
from cutsew.storage import zarr_layout

RULES = Path(__file__).parents[3] / "workflow" / "rules"
RULE = r"^(?:use rule \w+ as|rule|checkpoint) (\w+)(?: with)?:\n(.*?)(?=^\S|\Z)"
RULE_OF = {"encode": ("encode", "encode_images", "encode_crops")}
SETTINGS = {
    "classes": ["cat", "dog"],
    "dataset": {"name": "tiny", "kind": "demo", "shard_size": SHARD, "demo": {"rebuild_teacher": True}},
    "cut": {"passes": 4, "passes_per_job": PER_JOB},
    "references": {"kinds": ["supervised"]},
    "runs": {"other": {"fuse.alpha": 0.5}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gc")
    make_runs(folder)
    return folder


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    write("config/config.yaml", SETTINGS)
    return tmp_path / "results" / "tiny"


def write(name, settings):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(yaml.safe_dump(settings))


def call(*arguments):
    app = typer.Typer()
    app.command()(gc)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def listed(*arguments):
    done = call(*arguments)
    assert done.exit_code == 0, done.exception
    return re.findall(r"  results/tiny/(\S+)  ", done.stdout)


def everything(home):
    return {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}


def test_nothing_is_listed_where_all_is_referred_to(home):
    before = everything(home)
    assert "nothing to delete" in call("--yes").stdout
    assert everything(home) == before


def test_the_config_that_init_wrote_is_read_where_there_is_no_other(home):
    Path("config/config.yaml").rename("config.yaml")
    assert listed() == []
    write("config.yaml", SETTINGS | {"runs": {}})
    assert listed()


def test_a_run_that_is_no_longer_configured_goes_whole(home):
    write("config/config.yaml", SETTINGS | {"runs": {}})
    before = everything(home)
    assert listed() == ["other"] and everything(home) == before
    assert listed("--yes") == ["other"]
    assert everything(home) == {name for name in before if name.startswith("default/")}


def test_what_a_variant_now_reads_elsewhere_goes(home):
    """With another beta instead of another alpha, the variant reads fused.zarr from the base run."""
    write("config/config.yaml", SETTINGS | {"runs": {"other": {"correct.beta": 2}}})
    assert listed() == ["other/fused.json", "other/fused.zarr"]
    call("--yes")
    assert not (home / "other" / "fused.zarr").exists() and (home / "default" / "fused.zarr").exists()
    assert (home / "other" / "pseudo.zarr").exists()


def test_what_no_run_needs_goes(home):
    dataset = {**SETTINGS["dataset"], "demo": {"rebuild_teacher": False}}
    changes = {"dataset": dataset, "student": {"kind": "none"}, "references": {"kinds": []}}
    write("config/config.yaml", SETTINGS | changes)
    gone = {"references", "cutsew-tiny.safetensors", "cutsew-tiny.safetensors.json", "patches.parquet", "patches.json"}
    assert {Path(name).name for name in listed() if name.startswith("default/")} == gone | {
        name for stage in ("train", "predict", "explain") for name in OUTPUTS[stage]
    }


def test_caches_stay_with_the_stage_that_fills_them(home):
    for name in ("images.cache", "views.cache", "tagclip.cache"):
        (home / "default" / name / "0123").mkdir(parents=True)
    assert [Path(name).name for name in listed() if name.endswith(".cache")] == ["tagclip.cache"]


def test_passes_and_shards_beyond_those_configured_go(home):
    base = home / "default"
    encode(base, 0, 2)
    encode(base, 1, 2)
    shutil.copy(base / "views.zarr/global/c/1/0", base / "views.zarr/global/c/0/9")
    before = everything(home)
    beyond = {f"default/views.zarr/{name}/c/2/{shard}/0" for name in ("crops", "boxes") for shard in (0, 1)}
    beyond |= {f"default/views.records/2-{shard}.json" for shard in (0, 1)} | {"default/views.zarr/global/c/0/9"}
    assert set(listed()) == beyond
    call("--yes")
    assert everything(home) == before - beyond
    assert not (base / "views.zarr/crops/c/2").exists() and (base / "views.zarr/crops/c/1").exists()


def test_tagclips_scores_go_where_no_run_asks_for_them_and_shards_that_are_gone(home):
    base, files = home / "default", []
    for shard in (0, 1, 2):
        files += [
            zarr_layout.tagclip_chunk_file(base / "tagclip.zarr", array, shard)
            for array in (zarr_layout.TAGCLIP_LOCAL, zarr_layout.TAGCLIP_GLOBAL)
        ]
        files.append(zarr_layout.tagclip_chunk_record(base / "tagclip.zarr", shard))
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("scores")
    assert listed() == ["default/tagclip.records", "default/tagclip.zarr"]
    vit = {"teacher": {"open_clip": {"model": "ViT-B-16"}}, "score": {"rule": "tagclip"}, "runs": {}}
    write("config/config.yaml", SETTINGS | vit)
    assert {str(file.relative_to(home)) for file in files[6:]} <= set(listed())
    call("--yes")
    assert [file.exists() for file in files] == [True] * 6 + [False] * 3
    assert not files[6].parent.exists()


def test_a_config_with_more_passes_keeps_them(home):
    encode(home / "default", 0, 2)
    write("config/more.yaml", SETTINGS | {"cut": {"passes": 6, "passes_per_job": PER_JOB}})
    assert len(listed()) == 3
    assert listed("--configfile", "config/config.yaml", "--configfile", "config/more.yaml") == []


def test_several_configs_keep_what_any_of_them_refers_to(home):
    write("config/config.yaml", SETTINGS | {"runs": {}})
    write("config/sweep.yaml", SETTINGS)
    assert listed() == ["other"]
    assert listed("--configfile", "config/sweep.yaml") == []
    write("config/more.yaml", SETTINGS | {"runs": {"third": {"fuse.alpha": 0.7}}})
    shutil.copytree(home / "other", home / "third")
    both = ("--configfile", "config/sweep.yaml", "--configfile", "config/more.yaml")
    assert listed(*both) == [] and listed(*both[:2]) == ["third"]


def test_runs_of_a_sweep_stay_where_it_is_named_or_its_table_stands(home):
    write("config/config.yaml", SETTINGS | {"runs": {}})
    Path("config/sweeps").mkdir()
    write("config/sweeps/half.yaml", {"title": "half", "variants": {"other": {"fuse.alpha": 0.5}}, "seeds": [9]})
    (variant,) = variants_of(read_sweep(Path("config/sweeps/half.yaml")), SETTINGS, "half")
    home.joinpath("other").rename(home / variant.run)
    assert listed() == [variant.run]
    assert listed("--sweep", "half") == listed("--sweep", "config/sweeps/half.yaml") == []
    home.joinpath("sweeps", "half").mkdir(parents=True)
    home.joinpath("sweeps", "half", "table.csv").write_text("row\n")
    assert listed() == []


def test_sweeps_strange_folders_and_other_files_stay(home):
    for name in ("sweeps/alpha.csv", "notes/mine.txt", "default/mine.txt", ".hidden/images.parquet"):
        home.joinpath(name).parent.mkdir(exist_ok=True)
        home.joinpath(name).write_text("kept")
    other = home.with_name("another") / "default"
    shutil.copytree(home / "other", other)
    assert listed() == []


def say_made_with(folder, command):
    record = json.loads(folder.joinpath("fused.json").read_text())
    folder.joinpath("fused.json").write_text(json.dumps(record | {"command": command}))


def test_a_dataset_that_no_config_file_covers_is_named_and_left(home):
    other = home.with_name("birds")
    shutil.copytree(home, other)
    before = everything(other)
    line = "left alone: results/birds: no config file that was read covers this dataset; add "
    assert call("--yes").stdout.startswith(f"{line}its --configfile\nnothing else to delete: ")
    write("config/flock.yaml", {"dataset": {"name": "birds"}})
    assert call("--yes").stdout.startswith(f"{line}--configfile config/flock.yaml\n")
    write("config/own.yaml", {"dataset": {"name": "birds"}})  # the one that the results were made with comes first
    say_made_with(other / "other", "snakemake --cores all --configfile config/own.yaml")
    before = everything(other)
    assert call("--yes").stdout.startswith(f"{line}--configfile config/own.yaml\n")
    assert everything(other) == before


@pytest.mark.parametrize("file", ["config/mine.yaml", "my settings/mine.yaml"])
def test_what_another_config_file_made_is_left_as_long_as_that_exists(home, file):
    """Two config files of one dataset: the runs and passes of the one that was not given cannot be judged."""
    write("config/config.yaml", SETTINGS | {"runs": {}})
    write(file, SETTINGS)
    say_made_with(home / "other", f"snakemake --cores all --configfile '{file}'")
    before = everything(home)
    assert f"left alone: results/tiny/other: made with {file}, which was not read; add it" in call("--yes").stdout
    assert everything(home) == before
    assert listed("--configfile", "config/config.yaml", "--configfile", file) == []
    Path(file).unlink()
    assert listed() == ["other"]


def test_what_a_sweep_by_its_path_made_is_left_as_long_as_that_exists(home, tmp_path):
    write("config/config.yaml", SETTINGS | {"runs": {}})
    write("trials/half.yaml", {"title": "half", "variants": {"other": {"fuse.alpha": 0.5}}, "seeds": [9]})
    say_made_with(home / "other", "snakemake --cores all --config sweep=trials/half.yaml")
    assert "results/tiny/other: made with trials/half.yaml, which was not read" in call("--yes").stdout
    assert (home / "other").exists()
    assert listed("--sweep", "trials/half.yaml") == ["other"]  # the sweep was read, and names its runs otherwise


def test_passes_of_another_config_file_are_left(home):
    encode(home / "default", 0, 2)
    write("config/more.yaml", SETTINGS | {"cut": {"passes": 6, "passes_per_job": PER_JOB}})
    record = home / "default" / "views.records" / "2-0.json"
    content = json.loads(record.read_text()) | {"command": "snakemake --cores all --configfile config/more.yaml"}
    record.write_text(json.dumps(content))
    assert listed() == [] and "results/tiny/default: made with config/more.yaml" in call().stdout


def test_features_that_no_training_names_go(home):
    """The base run's training and a reference student's name theirs; a run that is not configured counts for none."""
    for run, key in (("default", "a"), ("default/references/supervised", "b"), ("other", "c"), ("gone", "d")):
        record = home / run / "adapter.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"facts": {"features": f"{key}.zarr"}}))
    for key in "abcde":
        chunk = home / "features" / f"{key}.zarr" / "weak" / "c" / "0"
        chunk.parent.mkdir(parents=True)
        chunk.write_text("chunk")
    assert listed() == ["gone", "features/d.zarr", "features/e.zarr"]
    call("--yes")
    assert sorted(path.name for path in (home / "features").iterdir()) == ["a.zarr", "b.zarr", "c.zarr"]


def test_links_are_not_followed(home, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(home / "other", outside)
    (home / "linked").symlink_to(outside)
    (home / "other" / "shortcut").symlink_to(outside)
    (home / "default" / "views.records" / "strange").symlink_to(outside)
    write("config/config.yaml", SETTINGS | {"runs": {}})
    done = call("--yes")
    assert "linked" not in done.stdout and not (home / "other").exists()
    assert outside.joinpath("fused.json").exists() and (home / "linked").is_symlink()


def test_sizes_are_summed(home):
    write("config/config.yaml", SETTINGS | {"runs": {}})
    size = sum(path.stat().st_size for path in (home / "other").rglob("*") if path.is_file())
    rows = call().stdout.splitlines()
    assert rows[0].split()[:2] == [f"{size / 1000:.1f}", "kB"] == rows[-1].split()[:2]
    assert rows[-1].endswith("in 1 places; nothing was deleted, --yes deletes them")


@pytest.mark.parametrize(
    ("content", "part"), [(None, "no such config file"), ("a: [", "not YAML"), ("- a", "holds a list, not settings")]
)
def test_a_bad_config_file_is_refused_in_one_line(home, content, part):
    if content is None:
        Path("config/config.yaml").unlink()
    else:
        Path("config/config.yaml").write_text(content)
    done = call("--yes")
    assert done.exit_code == 1 and part in str(done.exception) and "\n" not in str(done.exception)


def rules_outputs():
    """Read from the rules which names each writes into a run's folder."""
    result = {}
    for file in sorted(RULES.glob("*.smk")):
        for rule, body in re.findall(
            r"^(?:use rule \w+ as|rule|checkpoint) (\w+)(?: with)?:\n(.*?)(?=^\S|\Z)", file.read_text(), re.M | re.S
        ):
            output = re.search(r"^    output:\n(.*?)(?=^    \w|\Z)", body, re.M | re.S)
            paths = re.findall(r"results/\{dataset\}/\{run\}/([^\"]+)", output[1]) if output else []
            if paths:
                result[rule] = {path.split("/")[0] for path in paths}
    return result


def test_the_table_of_outputs_is_that_of_the_rules():
    rules = rules_outputs()
    assert len(rules) >= 16
    named = {}
    for stage in OUTPUTS:
        named[stage] = set().union(*(rules.pop(rule) for rule in RULE_OF.get(stage, (stage,))))
    assert rules == {}
    # Rules name a file of the world rather than its folder; the tiny CLIP's record is written next to it.
    named["tiny_clip"].add("cutsew-tiny.safetensors.json")
    assert named == {stage: set(names) for stage, names in OUTPUTS.items()}


REFERENCES = {"reference_labels", "reference_train", "reference_predict"}
OTHER_RULES = {"import_scores", "tagclip", "seal_tagclip"}
OPTIONAL = {"download", "targets", "corrections", "override", "tiles", "ensemble"}
ALWAYS_OUT = {"tiny_clip", *OPTIONAL, *REFERENCES}


@pytest.mark.parametrize(
    ("change", "without"),
    [
        ({}, {*ALWAYS_OUT, *OTHER_RULES}),
        (
            {"teacher": {"kind": "scores", "scores": {"file": "s.npz"}}},
            {*ALWAYS_OUT, "tagclip", "seal_tagclip", "text", "encode", "seal", "score", "explain"},
        ),
        (
            {"student": {"kind": "none"}},
            {*ALWAYS_OUT, *OTHER_RULES, "select", "train", "predict", "explain"},
        ),
        ({"score": {"rule": "tagclip"}}, {*ALWAYS_OUT, "import_scores"}),
        ({"explain": {"kind": "none"}}, {*ALWAYS_OUT, *OTHER_RULES, "explain"}),
        ({"sew": {"kind": "none"}}, {*ALWAYS_OUT, *OTHER_RULES, "select"}),
        ({"dataset": {"demo": {"rebuild_teacher": True}}}, {*REFERENCES, *OPTIONAL, *OTHER_RULES}),
        (
            {"references": {"kinds": ["zero_shot"]}},
            {"tiny_clip", *OPTIONAL, *OTHER_RULES, "reference_labels"},
        ),
        ({"references": {"kinds": ["supervised"]}}, {"tiny_clip", *OPTIONAL, *OTHER_RULES}),
        ({"labels": {"overrides": "audit.csv"}}, ALWAYS_OUT - {"corrections", "override"} | OTHER_RULES),
        (
            {"labels": {"overrides": "audit.csv"}, "student": {"kind": "none"}},
            {*ALWAYS_OUT, *OTHER_RULES, "select", "train", "predict", "explain"} - {"corrections"},
        ),
        ({"targets": {"labels_per_image": 1.5}}, ALWAYS_OUT - {"targets"} | OTHER_RULES),
        ({"predict": {"tiles": True}}, ALWAYS_OUT - {"tiles"} | OTHER_RULES),
        ({"predict": {"ensemble": "teacher"}}, ALWAYS_OUT - {"ensemble"} | OTHER_RULES),
        ({"dataset": {"kind": "folder", "root": "x"}}, {*ALWAYS_OUT, *OTHER_RULES, "demo_world", "truth"}),
        ({"dataset": {"kind": "folder", "root": "x", "truth": "t.csv"}}, {*ALWAYS_OUT, *OTHER_RULES, "demo_world"}),
        (
            {
                "dataset": {
                    "kind": "coco",
                    "root": "x/y",
                    "download": {"folder": "x", "archives": [{"url": "http://a/b.zip"}]},
                }
            },
            {*ALWAYS_OUT, *OTHER_RULES, "demo_world"} - {"download"},
        ),
    ],
)
def test_needed_stages(change, without):
    config = Config.model_validate({"classes": ["a", "b"], **change})
    assert required_stages(config) == set(OUTPUTS) - without
