"""Which settings a stage reads, and which run's folder holds an artifact."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from cutsew.config.loading import DEFAULT
from cutsew.config.sweep import SETTINGS
from cutsew.errors import UserError
from cutsew.pipeline import config_docs, rule_inputs
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.outputs import required_stages
from cutsew.pipeline.plan import Plan
from cutsew.provenance.record import Record
from cutsew.storage.manifest import write_manifest

BASE = {"classes": ["cat", "dog"], "correct": {"beta": 1}}


def plan(**runs):
    return Plan({**BASE, "runs": runs})


def test_stages_read_settings_that_exist():
    known = {dotted[:end] for dotted in SETTINGS for end in (None, *(i for i, c in enumerate(dotted) if c == "."))}
    assert {dotted for stage in STAGES.values() for dotted in stage.settings} <= known


def test_stages_stand_after_stages_that_exist():
    seen = set()
    for name, stage in STAGES.items():
        assert set(stage.after) <= seen, name
        seen.add(name)


def test_params_hold_version_and_settings():
    assert json.loads(plan().params(DEFAULT, "select")) == {"version": 1, "select": {"top_k": 200}}


def test_params_leave_out_other_teachers():
    assert list(plan().settings(DEFAULT, "text")["teacher"]) == ["kind", "open_clip"]


MEASURED = {"evaluate", "report", "sweep_table"}
REFERENCES = {"reference_train", "reference_predict"}
AFTER_TRAIN = {"train", "predict", "tiles", "ensemble", "thresholds", "explain", "labels_table", *MEASURED}
FIRST = {"tiny_clip", "demo_world", "download", "manifest", "truth", "reference_labels", "import_scores"}
FIRST |= {"corrections"}


@pytest.mark.parametrize(
    ("change", "remade"),
    [
        ({"fuse.alpha": 0.5}, {"fuse", "correct", "targets", "override", *AFTER_TRAIN}),
        ({"correct.beta": 2}, {"correct", "targets", "override", *AFTER_TRAIN}),
        ({"predict.ensemble": "teacher"}, {"labels_table", *MEASURED}),
        ({"predict.tiles": True}, {"labels_table", *MEASURED}),
        ({"references.kinds": ["zero_shot"]}, MEASURED),
        ({"targets.labels_per_image": 1.5}, {"targets", "override", *AFTER_TRAIN}),
        ({"labels.overrides": "audit.csv"}, {"corrections", "override", *AFTER_TRAIN}),
        ({"select.top_k": 3}, {"select", *AFTER_TRAIN}),
        ({"sew.p": 0.1}, AFTER_TRAIN),
        ({"train.lr_estimator": 0.1}, AFTER_TRAIN),
        ({"train.lr_adapter": 0.1}, {*AFTER_TRAIN, *REFERENCES}),
        ({"train.seed": 1}, {*AFTER_TRAIN, *REFERENCES, "reference_labels"}),
        (
            {"references.smoothing": 0.2, "references.kinds": ["smoothed"]},
            {"reference_labels", *REFERENCES, *MEASURED},
        ),
        ({"evaluate.top": 1}, MEASURED),
        ({"thresholds.rule": "count"}, {"thresholds", "labels_table", *MEASURED}),
        ({"explain.num_embeddings": 9}, {"explain", "report"}),
        ({"compute.batch_size": 1}, set()),
        ({"prompts.templates": ["{class}"]}, set(STAGES) - FIRST - {"encode", "seal"}),
        ({"prompts.background": ["sky"]}, set(STAGES) - FIRST - {"encode", "seal"}),
        ({"prompts.names": {"cat": ["cat", "kitten"]}}, set(STAGES) - FIRST - {"encode", "seal"}),
        ({"prompts.names": {"cat": "kitten"}}, set(STAGES) - FIRST - {"encode", "seal"}),
        ({"score.activation": "softmax"}, (set(STAGES) - FIRST - {"encode", "seal"}) | {"import_scores"}),
        ({"cut.passes": 30}, set(STAGES) - FIRST - {"text", "tagclip", "seal_tagclip"}),
        (  # tagclip.zarr is made by no rule without score.rule: tagclip
            {"score.rule": "tagclip"},
            {"tagclip", "seal_tagclip", "fuse", "correct", "targets", "override", *AFTER_TRAIN},
        ),
    ],
)
def test_a_variant_makes_only_what_differs(change, remade):
    result = plan(variant=change)
    assert {stage for stage in STAGES if result.source_run("variant", stage) == "variant"} == remade
    assert result.folder("variant", "demo_world") == Path("results/demo/default")


@pytest.mark.parametrize(
    ("first", "change"),
    [
        ({"train.labels": "fused"}, {"correct.beta": 2}),
        ({"train.labels": "zero_shot"}, {"fuse.alpha": 0.5}),
        ({"select.labels": "pseudo"}, {}),
    ],
)
def test_settings_without_effect_train_nothing_anew(first, change):
    result = plan(one=first, other={**first, **change})
    assert result.source_run("other", "train") == "one"


def test_references_are_trained_on_plain_images_with_fixed_labels():
    settings = plan().settings(DEFAULT, "reference_train")
    assert settings["sew"] == {"kind": "none"} and settings["train"]["em_weight"] == 0
    assert "correct" not in settings and "labels" not in settings["train"]


def test_a_rule_that_calls_another_stages_command_has_its_version():
    borrowed = {name: stage.command for name, stage in STAGES.items() if stage.command}
    assert borrowed == {"reference_train": "train", "reference_predict": "predict"}
    assert all(STAGES[name].version == STAGES[command].version for name, command in borrowed.items())


TAGCLIP = {"score.rule": "tagclip"}


@pytest.mark.parametrize(
    ("change", "remade"),
    [
        ({"score.tagclip.weight": 0.1}, {"fuse", "correct", "targets", "override", *AFTER_TRAIN}),
        (
            {"score.tagclip.votes": 2},
            {"tagclip", "seal_tagclip", "fuse", "correct", "targets", "override", *AFTER_TRAIN},
        ),
    ],
)
def test_with_tagclip_a_variant_makes_only_what_differs(change, remade):
    result = plan(one=TAGCLIP, other={**TAGCLIP, **change})
    assert {stage for stage in STAGES if result.source_run("other", stage) == "other"} == remade
    assert "fuse" not in result.settings("other", "fuse")


def test_crops_are_made_only_where_some_run_fuses_them():
    alone = Plan({**BASE, "score": {"rule": "tagclip"}, "cut": {"passes": 5}})
    assert alone.settings(DEFAULT, "seal")["cut"]["passes"] == 0
    sibling = Plan({**BASE, "score": {"rule": "tagclip"}, "runs": {"cut": {"score.rule": "softmax"}}})
    assert {sibling.source_run("cut", stage) for stage in ("encode", "seal", "text", "score", "select")} == {DEFAULT}
    assert sibling.settings(DEFAULT, "seal")["cut"]["passes"] == 20
    other_crops = Plan(
        {**BASE, "score": {"rule": "tagclip"}, "runs": {"cut": {"score.rule": "softmax", "cut.seed": 1}}}
    )
    assert other_crops.settings(DEFAULT, "seal")["cut"]["passes"] == 0


def test_variants_share_with_each_other():
    result = plan(a={"fuse": {"alpha": 0.5}}, b={"fuse.alpha": 0.5, "train.epochs": 2})
    assert result.source_run("b", "fuse") == "a" and result.source_run("b", "train") == "b"


def test_rebuilt_weights_take_the_place_of_the_shipped():
    shipped = {"kind": "open_clip", "open_clip": {"model": "cutsew-tiny", "pretrained": "demo"}}
    result = Plan({**BASE, "teacher": shipped, "dataset": {"demo": {"rebuild_teacher": True}}})
    path = result.settings(DEFAULT, "text")["teacher"]["open_clip"]["pretrained"]
    assert path == "results/demo/default/cutsew-tiny.safetensors"


def test_a_bad_variant_is_named():
    with pytest.raises(UserError, match=r"runs\.x: fuse\.alpha: .*greater than or equal to 0"):
        plan(x={"fuse.alpha": -1})


# Corrections by a human


def listed(made, **splits):
    """Write the manifest of the plan's base run as the workflow does, with its record."""
    folder = made.folder(DEFAULT, "manifest")
    folder.mkdir(parents=True)
    ids = list(splits)
    images = pd.DataFrame({"id": ids, "path": ids, "width": 1, "height": 1, "bytes": 1, "digest": ids, "shard": 0})
    write_manifest(folder / "images.parquet", images.assign(split=list(splits.values())))
    record = Record("manifest", 1, json.loads(made.params(DEFAULT, "manifest")))
    record.write(folder / "images.json", {})


@pytest.mark.parametrize(
    ("rows", "trains"),
    [(["held,cat,1"], False), (["trained,cat,1"], True), (["held,cat,1", "trained,cat,0"], True), ([], False)],
)
def test_a_variant_is_trained_where_a_training_image_is_corrected(tmp_path, monkeypatch, rows, trains):
    monkeypatch.chdir(tmp_path)
    Path("audit.csv").write_text("\n".join(["image,class,present", *rows]) + "\n")
    listed(plan(), trained="train", held="test")
    result = plan(variant={"labels.overrides": "audit.csv"})
    assert result.trains_on_corrections("variant") == trains and not result.trains_on_corrections(DEFAULT)
    assert result.source_run("variant", "train") == ("variant" if trains else DEFAULT)
    assert result.source_run("variant", "report") == "variant"
    assert ("train nothing" in result.describe_corrections("variant")) == ("held,cat,1" in rows)


def test_before_images_are_listed_corrections_are_taken_to_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("audit.csv").write_text("image,class,present\nheld,cat,1\n")
    result = plan(variant={"labels.overrides": "audit.csv"})
    assert result.trains_on_corrections("variant") and result.source_run("variant", "train") == "variant"
    assert result.describe_corrections("variant") == "" == result.training_corrections("variant")


def test_a_manifest_of_other_settings_does_not_decide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("audit.csv").write_text("image,class,present\nheld,cat,1\n")
    listed(plan(), trained="train", held="test")
    runs = {"variant": {"labels.overrides": "audit.csv"}}
    result = Plan({**BASE, "dataset": {"shard_size": 3}, "runs": runs})
    assert result.source_run("variant", "train") == "variant"


@pytest.mark.parametrize(
    ("changes", "targets", "override", "train"),
    [
        ({}, "correct", "correct", "correct"),
        ({"train.labels": "fused"}, "fuse", "fuse", "fuse"),
        ({"train.labels": "zero_shot"}, "score", "score", "score"),
        (
            {"train.labels": "zero_shot", "teacher.kind": "scores", "teacher.scores.file": "s.npz"},
            *["import_scores"] * 3,
        ),
        ({"train.labels": "fused", "targets.labels_per_image": 1.5}, "fuse", "targets", "targets"),
    ],
)
def test_the_labels_that_a_stage_reads_are_the_last_made_before_it(changes, targets, override, train):
    result = plan(one=changes)
    stages = ("targets", "override", "train")
    assert [result.labels_read("one", stage, corrected=False) for stage in stages] == [targets, override, train]
    assert [result.labels_read("one", stage, corrected=True) for stage in stages] == [targets, override, "override"]


RULES = Path(__file__).parents[3] / "workflow" / "rules"
RULE = r"^(?:use rule \w+ as|rule|checkpoint) (\w+)(?: with)?:\n(.*?)(?=^\S|\Z)"
RULES_OF = {"encode": ("encode", "encode_images", "encode_crops")}
"""Stage -> its rules, where they have other names."""


def inputs_of_rules():
    """Return rule -> a function of (plan, run) that lists the rule's inputs, read from the rules themselves."""

    def of_job(function, *args):
        return lambda plan, wildcards: function(plan, wildcards, *args)

    scope = {
        "rule_inputs": rule_inputs,
        "of_job": of_job,
        "shard_files": lambda stage: of_job(rule_inputs.shard_files, stage),
        "artifact": lambda *args: of_job(rule_inputs.artifact, *args),
        "optional": lambda *args: of_job(rule_inputs.optional_artifact, *args),
        "manifest": of_job(rule_inputs.artifact, "manifest", "images.parquet"),
        "user_file": lambda setting: lambda plan, wildcards: str(setting(plan.runs[wildcards.run])),
        "ancient": lambda value: value,
    }
    result = {}
    for file in sorted(RULES.glob("*.smk")):
        for rule, body in re.findall(
            r"^(?:use rule \w+ as|rule|checkpoint) (\w+)(?: with)?:\n(.*?)(?=^\S|\Z)", file.read_text(), re.M | re.S
        ):
            given = re.search(r"^    input:\n(.*?)(?=^    \w)", body, re.M | re.S)
            if given and rule != "sweep_table":  # the runs of a sweep are its inputs
                functions = eval(f"dict({given[1]})", scope)  # noqa: S307 - our own rules
                result[rule] = functions.values()
    return result


INPUTS = inputs_of_rules()


def inputs(plan, stage, run):
    """Return what the rules of a stage read for a run, without the folders of the runs that make it."""
    wildcards = SimpleNamespace(run=run, reference="supervised", shard="0", block="0")
    for rule in RULES_OF.get(stage, (stage,)):
        for function in INPUTS.get(rule, ()):
            result = function(plan, wildcards)
            for path in [result] if isinstance(result, str) else result:
                yield "/".join(Path(path).parts[3:]) if path.startswith("results/") else path


def changes(raw):
    """Yield all dotted settings with values that are not those of a base run, and a plan of both."""
    values = {setting.name: setting.kind for setting in config_docs.settings() if not setting.section}
    for dotted in SETTINGS:
        if dotted.startswith(("compute.", "dataset.name", "runs", "method")):
            continue
        literals = [yaml.safe_load(text) for text in re.findall(r"`([^`]+)`", values.get(dotted, ""))]
        others = [7] if "number" in values.get(dotted, "") else ["a.csv", ["zero_shot"], ["supervised"]]
        for value in [*literals, *([] if None not in literals and literals else others)]:
            try:
                yield dotted, value, Plan({**raw, "runs": {"variant": {dotted: value}}})
            except UserError:
                continue


@pytest.mark.parametrize(
    "raw",
    [
        {"dataset": {"truth": "truth.csv"}},
        {"dataset": {"truth": "truth.csv"}, "predict": {"tiles": True}, "references": {"kinds": ["single_positive"]}},
        {"method": "cutsew", "labels": {"overrides": "audit.csv"}},
        {"teacher": {"kind": "scores", "scores": {"file": "scores.npz"}}},
        {"student": {"kind": "none"}, "targets": {"labels_per_image": 1.5}},
        {"score": {"rule": "tagclip"}, "teacher": {"open_clip": {"model": "ViT-B-16"}}},
    ],
)
def test_a_stage_with_other_inputs_has_an_artifact_of_its_own(raw):
    """Otherwise a variant would be given the base run's artifact, and its own would never be made."""
    tried = set()
    for dotted, value, result in changes({"classes": ["cat", "dog", "cow"], **raw}):
        both = required_stages(result.runs[DEFAULT]) & required_stages(result.runs["variant"])
        for stage in both:
            if sorted(inputs(result, stage, DEFAULT)) != sorted(inputs(result, stage, "variant")):
                assert result.source_run("variant", stage) == "variant", (stage, dotted, value)
                tried.add(stage)
    assert len(tried) >= 3


def test_scores_without_crop_logits_depend_on_the_fusion_rule_and_not_on_its_parameters():
    runs = {"alpha": {"fuse.alpha": 0.3}, "cdul": {"fuse.rule": "cdul"}, "all": {"score.keep": "all"}}
    plan = Plan({**BASE, "score": {"keep": "none"}, "runs": runs})
    assert [plan.source_run(run, "score") for run in runs] == [DEFAULT, "cdul", "all"]
    assert plan.settings("alpha", "score") == {"score": {"epsilon": 1e-6, "keep": "none"}, "fuse": {"rule": "max"}}
    stored = Plan({**BASE, "runs": {"cdul": {"fuse.rule": "cdul"}}})
    assert stored.source_run("cdul", "score") == DEFAULT
