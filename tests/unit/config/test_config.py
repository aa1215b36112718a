"""config.load: one line that names the dotted setting, what is wrong and what to do."""

import pickle
import re

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.config import Config, load, load_runs, override, with_command_line
from cutsew.config.base import kinds_of
from cutsew.errors import UserError, headed
from cutsew.pipeline import config_docs

BASE = {"classes": ["cat", "dog", "horse"]}

WRONG = [
    ({}, "classes: is not set; set it in the config file"),
    (BASE | {"fuse": {"alfa": 0.5}}, "fuse.alfa: unknown setting; did you mean alpha?"),
    (BASE | {"fused": {}}, "fused: unknown setting; did you mean fuse?"),
    (
        BASE | {"fuse": {"zzz": 1}},
        "fuse.zzz: unknown setting; known: rule, passes, space, alpha, gate, zeta, soften, tau, anchor",
    ),
    (
        BASE | {"teacher": {"kind": "conse", "conse": {"topp": 1}}},
        "teacher.conse.topp: unknown setting; did you mean top?",
    ),
    (
        BASE | {"cut": {"passes": "many"}},
        "cut.passes: input should be a valid integer, unable to parse string as an integer, not 'many'",
    ),
    (BASE | {"fuse": {"alpha": -1}}, "fuse.alpha: input should be greater than or equal to 0, not -1"),
    (BASE | {"cut": {"flip": 2}}, "cut.flip: input should be less than or equal to 1, not 2"),
    (BASE | {"fuse": {"space": "log"}}, "fuse.space: input should be 'logit' or 'probability', not 'log'"),
    (BASE | {"cut": {"area": [0.5, 0.1]}}, "cut: area must be two positive numbers, smaller first"),
    ({"classes": ["cat", "dog", "cat"]}, "classes: names cat more than once; keep one"),
    ({"classes": ["cat", " "]}, "classes: holds an empty name; remove it"),
    ({"classes": []}, "classes: is empty; name at least one class"),
    (
        {"classes": ["cat"], "correct": {"rule": "hard"}},
        "correct.rule: hard would set the only class in every image; set another rule",
    ),
    (
        BASE | {"dataset": {"root": "images"}},
        "dataset.root: is a setting of kind folder, tar, parquet, voc, coco or nus, and dataset.kind is demo; leave "
        "it out, or set dataset.kind",
    ),
    (
        BASE | {"dataset": {"kind": "folder", "root": "images", "difficult": "ignore"}},
        "dataset.difficult: is a setting of kind voc, and dataset.kind is folder; leave it out, or set dataset.kind",
    ),
    (
        BASE | {"dataset": {"kind": "ids", "on_bad_image": "skip"}},
        "dataset.on_bad_image: is a setting of kind demo, folder, tar, parquet, voc, coco or nus, and dataset.kind is "
        "ids; leave it out, or set dataset.kind",
    ),
    (BASE | {"dataset": {"kind": "folder"}}, "dataset.root: is not set; set it in the config file"),
    (
        BASE | {"dataset": {"kind": "folder", "root": "x", "test": {"folder": "a", "fraction": 0.1}}},
        "dataset.test: name only one of folder, list and fraction",
    ),
    (BASE | {"teacher": {"kind": "scores"}}, "teacher: kind scores needs `scores.file`"),
    (BASE | {"correct": {"beta": 4}}, "correct.beta: 4 is more than the 3 classes; lower it"),
    (
        BASE | {"prompts": {"names": {"cow": "a cow"}}},
        "prompts.names: cow not among classes; remove or rename",
    ),
    (
        BASE | {"train": {"adapter": {"width": 30}}},
        "train: adapter.heads 8 does not divide adapter.width 30",
    ),
    (
        BASE | {"fuse": {"alpha": -1, "beta": 1}},
        "fuse.alpha: input should be greater than or equal to 0, not -1\n"
        "fuse.beta: unknown setting; did you mean zeta?",
    ),
    (
        BASE | {"labels": {"overrides": ""}},
        "labels.overrides: is empty; name a file or folder, or write null for none",
    ),
    (BASE | {"dataset": {"truth": " "}}, "dataset.truth: is empty; name a file or folder, or write null for none"),
    (
        BASE | {"train": {"epochs": "many"}},
        "train.epochs: input should be a valid integer, unable to parse string as an integer, or 'auto', not 'many'",
    ),
    (
        BASE | {"targets": {"labels_per_image": -1}, "select": {"top_k": 0}},
        "select.top_k: input should be greater than or equal to 1, or 'auto', not 0\n"
        "targets.labels_per_image: input should be greater than 0, or 'auto', not -1",
    ),
    (
        BASE | {"prompts": {"names": {"cat": 3}}},
        "prompts.names.cat: input should be a valid string, not 3; put quotes around it",
    ),
    (
        BASE | {"cut": {"layout": "tiles", "tiles": [{"grid": 0}]}},
        "cut.tiles.0.grid: input should be greater than or equal to 1, not 0",
    ),
    (
        BASE | {"fuse": {"rule": "maxx"}},
        "fuse.rule: input should be 'max', 'gated', 'mean', 'cdul', 'soft' or 'standard', not 'maxx'",
    ),
    (
        BASE | {"fuse": {"rule": None}},
        "fuse.rule: input should be 'max', 'gated', 'mean', 'cdul', 'soft' or 'standard', not 'None'",
    ),
    (BASE | {"fuse": 3}, "fuse: input should be a valid dictionary, not 3"),
    (
        BASE | {"cut": {"layout": "windows", "windows": {"scal": 2}}},
        "cut.windows.scal: unknown setting; did you mean scale?",
    ),
    (
        BASE | {"fuse": {"gate": 0.1, "rule": "soft"}},
        "fuse.gate: is a setting of rule gated, and fuse.rule is soft; leave it out, or set fuse.rule",
    ),
    (
        BASE | {"fuse": {"rule": "gated", "alpha": 0.1}},
        "fuse.alpha: is a setting of rule max or soft, and fuse.rule is gated; leave it out, or set fuse.rule",
    ),
    (
        BASE | {"method": "released", "fuse": {"alpha": 0.1}},
        "fuse.alpha: is a setting of rule max or soft, and fuse.rule is gated; leave it out, or set fuse.rule",
    ),
    (
        BASE | {"cut": {"tiles": [{"grid": 2}]}},
        "cut.tiles: is a setting of layout tiles or auto, and cut.layout is random; leave it out, or set cut.layout",
    ),
    (
        BASE | {"method": "cutsew", "cut": {"passes": 3}},
        "cut.passes: is a setting of layout random or spread, and cut.layout is auto; leave it out, or set cut.layout",
    ),
    (
        BASE | {"teacher": {"kind": "conse", "open_clip": {"model": "RN50"}}},
        "teacher.open_clip: is a setting of kind open_clip, and teacher.kind is conse; leave it out, or set "
        "teacher.kind",
    ),
    (
        BASE | {"teacher": {"kind": "scores", "scores": {"file": "s.npz"}, "precision": "float32"}},
        "teacher.precision: is a setting of kind open_clip or conse, and teacher.kind is scores; leave it out, or set "
        "teacher.kind",
    ),
    (
        BASE | {"student": {"timm": {"weights": "w.pt"}}},
        "student.timm: is a setting of kind timm, and student.kind is open_clip; leave it out, or set student.kind",
    ),
    (
        BASE | {"student": {"kind": "none", "precision": "float32"}},
        "student.precision: is a setting of kind open_clip or timm, and student.kind is none; leave it out, or set "
        "student.kind",
    ),
    (
        BASE | {"score": {"tagclip": {"votes": 2}}},
        "score.tagclip: is a setting of rule tagclip, and score.rule is softmax; leave it out, or set score.rule",
    ),
    (
        BASE | {"correct": {"rule": "hard", "beta": 2}},
        "correct.beta: is a setting of rule sqrt or linear, and correct.rule is hard; leave it out, or set "
        "correct.rule",
    ),
    (
        BASE | {"correct": {"linear_alpha": 0.2}},
        "correct.linear_alpha: is a setting of rule linear, and correct.rule is sqrt; leave it out, or set "
        "correct.rule",
    ),
    (
        BASE | {"train": {"steps": 9}},
        "train.steps: is a setting of head linear, and train.head is adapter; leave it out, or set train.head",
    ),
    (
        BASE | {"method": "cutsew", "train": {"adapter": {"width": 64}}},
        "train.adapter: is a setting of head adapter, and train.head is linear; leave it out, or set train.head",
    ),
    (
        BASE | {"method": "cutsew", "correct": {"beta": 2}},
        "correct.beta: is a setting of rule sqrt or linear, and correct.rule is identity; leave it out, or set "
        "correct.rule",
    ),
    (
        BASE | {"runs": {"a": {"fuse.rule": "mean", "fuse.alpha": 0.1}}},
        "runs.a: fuse.alpha: is a setting of rule max or soft, and fuse.rule is mean; leave it out, or set fuse.rule",
    ),
    (
        BASE | {"runs": {"a": {"fuse.alpha": -1}}},
        "runs.a: fuse.alpha: input should be greater than or equal to 0, not -1",
    ),
    (
        BASE | {"runs": {"../a": {}}},
        "runs.../a: not a name for a folder; use letters, digits and . _ = + - (and not default, features, sweeps)",
    ),
]


@pytest.mark.parametrize(("raw", "line"), WRONG, ids=[line[:40] for _, line in WRONG])
def test_error_lines(raw, line):
    with pytest.raises(UserError) as error:
        load(raw)
    assert str(error.value) == line


def test_errors_beyond_ten_are_counted():
    unknown = {f"setting_{i:02}": 1 for i in range(13)}
    with pytest.raises(UserError) as error:
        load(BASE | {"fuse": unknown})
    lines = str(error.value).split("\n")
    assert [line.partition(":")[0] for line in lines[:-1]] == [f"fuse.setting_{i:02}" for i in range(10)]
    assert lines[-1] == "and 3 more errors; correct these and try again"


def test_each_run_with_a_wrong_setting_has_its_line():
    runs = {"good": {"fuse.alpha": 0.2}, "one": {"fuse.alpha": -1}, "a/b": {}, "two": {"correct.beta": 9, "sew.p": 2}}
    with pytest.raises(UserError) as error:
        load_runs(BASE | {"runs": runs})
    names = [line.split(": ")[:2] for line in str(error.value).split("\n")]
    assert [name if name.endswith("/b") else [name, setting] for name, setting in names] == [
        ["runs.one", "fuse.alpha"],
        "runs.a/b",
        ["runs.two", "sew.p"],
    ]


def test_every_idle_setting_has_its_line():
    with pytest.raises(UserError) as error:
        load(
            BASE | {"student": {"kind": "none"}, "sew": {"kind": "none"}, "select": {"top_k": 2}, "train": {"seed": 1}}
        )
    lines = str(error.value).split("\n")
    assert [line.partition(":")[0] for line in lines] == ["sew.kind", "select.top_k", "train.seed"]
    assert all(
        line.endswith("no effect with student.kind none; leave it out, or change student.kind") for line in lines
    )


def test_an_error_stays_one_line_and_survives_a_process():
    error = pickle.loads(pickle.dumps(UserError("a\nb", "c").below("x: ")))
    assert str(error) == "x: a\\nb\nx: c" and headed(str(error)) == "cutsew: x: a\\nb\ncutsew: x: c"


@pytest.mark.parametrize("rule", sorted(kinds_of(Config)["fuse"].models))
def test_rules_of_all_crops_are_refused_where_none_are_stored(rule):
    raw = BASE | {"classes": ["a", "b", "c"], "score": {"keep": "none"}, "fuse": {"rule": rule}}
    if rule in ("max", "cdul"):
        assert load(raw).fuse.rule == rule
        return
    with pytest.raises(UserError, match=rf"^score\.keep: none stores only .*fuse\.rule: {rule} needs all; set "):
        load(raw)


def test_crop_logits_that_nothing_could_recompute_are_kept():
    scores = {"kind": "scores", "scores": {"file": "scores.npz"}}
    with pytest.raises(
        UserError, match=r"^score\.keep: none needs embeddings, and teacher\.kind: scores has none; set"
    ):
        load(BASE | {"score": {"keep": "none"}, "teacher": scores})
    with pytest.raises(UserError, match=r"^fuse\.passes: selects among crop logits, and score\.keep: none stores none"):
        load(BASE | {"score": {"keep": "none"}, "fuse": {"passes": 3}})


def test_template_needs_the_class():
    with pytest.raises(UserError, match=r"^prompts: template 'an image' lacks \{class\}$"):
        load(BASE | {"prompts": {"templates": ["an image"]}})


def test_ids_have_no_images():
    scores = {"kind": "scores", "scores": {"file": "scores.npz"}}
    with pytest.raises(UserError, match=r"^dataset\.kind: ids has no images, so set teacher\.kind: scores$"):
        load(BASE | {"dataset": {"kind": "ids"}})
    with pytest.raises(UserError, match=r"^dataset\.kind: ids has no images, so set student\.kind: none$"):
        load(BASE | {"dataset": {"kind": "ids"}, "teacher": scores})
    assert (
        load(BASE | {"dataset": {"kind": "ids"}, "teacher": scores, "student": {"kind": "none"}}).teacher.kind
        == "scores"
    )


@pytest.mark.parametrize(("given", "meant"), [(False, "off"), ("off", "off"), (0, 0.0), (2.5, 2.5)])
def test_off_is_what_yaml_makes_of_it(given, meant):
    assert load(BASE | {"compute": {"cache_features": given}}).compute.cache_features == meant


@pytest.mark.parametrize("word", ["null", "~", None])
def test_null_as_the_command_line_gives_it(word):
    """Snakemake's `--config` reads the scalars of YAML as text."""
    teacher = {"open_clip": {"model": "local-dir:weights/own", "pretrained": word, "image_size": word}}
    raw = {"classes": ["cat", "dog"], "teacher": teacher, "labels": {"overrides": word}, "dataset": {"truth": word}}
    config = load(raw | {"targets": {"labels_per_image": word}})
    assert config.teacher.open_clip.pretrained is None and config.teacher.open_clip.image_size is None
    assert config.labels.overrides is None and config.dataset.truth is None and config.targets.labels_per_image is None
    with pytest.raises(UserError, match=r"^student\.open_clip\.image_size: "):  # which cannot be null
        load(raw | {"student": {"open_clip": {"image_size": word}}})


def test_settings_never_change_after_loading():
    with pytest.raises(ValueError, match="frozen"):
        load(BASE).fuse.alpha = 1


def test_override_by_dotted_name_keeps_the_rest():
    raw = BASE | {"fuse": {"space": "probability", "alpha": 0.2}, "runs": {"a": {}}}
    merged = override(raw, {"fuse.alpha": 0.5, "cut": {"passes": 3}})
    assert merged == BASE | {"fuse": {"space": "probability", "alpha": 0.5}, "cut": {"passes": 3}}
    assert raw["fuse"]["alpha"] == 0.2


@pytest.mark.parametrize(
    ("raw", "changes", "left"),
    [
        ({"fuse": {"alpha": 0.5, "passes": 3}}, {"fuse.rule": "mean"}, {"fuse": {"rule": "mean", "passes": 3}}),
        (
            {"fuse": {"alpha": 0.5}},
            {"fuse": {"rule": "soft", "tau": 1}},
            {"fuse": {"rule": "soft", "alpha": 0.5, "tau": 1}},
        ),
        ({"fuse": {"rule": "gated", "gate": 0.5}}, {"fuse.rule": "max"}, {"fuse": {"rule": "max"}}),
        (
            {"cut": {"passes": 3, "passes_per_job": 2}},
            {"method": "cutsew"},
            {"method": "cutsew", "cut": {"passes_per_job": 2}},
        ),
        (
            {"cut": {"layout": "spread", "passes": 3}},
            {"method": "cutsew"},
            {"method": "cutsew", "cut": {"layout": "spread", "passes": 3}},
        ),
        ({"method": "cutsew", "cut": {"tiles": [{"grid": 2}]}}, {"method": "paper"}, {"method": "paper", "cut": {}}),
        (
            {"teacher": {"open_clip": {"model": "RN50"}, "precision": "float32"}},
            {"teacher.kind": "conse"},
            {"teacher": {"kind": "conse", "precision": "float32"}},
        ),
        (
            {"student": {"kind": "timm", "precision": "float32", "timm": {"image_size": 224}}},
            {"student": {"kind": "none"}},
            {"student": {"kind": "none"}},
        ),
        ({"correct": {"beta": 2}}, {"method": "cutsew"}, {"method": "cutsew", "correct": {}}),
        (
            {"train": {"lr_adapter": 0.1, "seed": 3}},
            {"method": "cutsew"},
            {"method": "cutsew", "train": {"seed": 3}},
        ),
        (
            {"method": "cutsew", "train": {"steps": 9, "batch_size": 8}},
            {"train.head": "adapter"},
            {"method": "cutsew", "train": {"head": "adapter", "batch_size": 8}},
        ),
        ({"correct": {"beta": 2}}, {"correct.rule": "linear"}, {"correct": {"rule": "linear", "beta": 2}}),
        (
            {"score": {"rule": "tagclip", "tagclip": {"votes": 2}, "epsilon": 1e-5}},
            {"score.rule": "softmax"},
            {"score": {"rule": "softmax", "epsilon": 1e-5}},
        ),
    ],
)
def test_a_run_that_selects_another_kind_leaves_out_what_that_lacks(raw, changes, left):
    assert override(BASE | raw, changes) == BASE | left
    assert load(BASE | raw | {"runs": {"a": changes}}) == load(BASE | raw).model_copy(update={"runs": {"a": changes}})


def test_the_command_line_selects_a_kind_as_a_run_does():
    given = {"fuse": {"rule": "mean"}}
    merged = {
        "fuse": {"alpha": 0.5, "rule": "mean"},
        "runs": {"a": {"fuse.rule": "max", "fuse.alpha": 1}},
    }  # by Snakemake
    assert with_command_line(BASE | merged, given) == BASE | {"fuse": {"rule": "mean"}, "runs": merged["runs"]}
    assert with_command_line(BASE | merged, {}) == BASE | merged


REQUIRED = {
    "scores": {"scores": {"file": "scores.npz"}},
    **dict.fromkeys(("folder", "tar", "parquet", "voc", "coco", "nus"), {"root": "images"}),
}
"""Settings without which a kind is refused."""

SUITED = {"ids": {"teacher": {"kind": "scores"} | REQUIRED["scores"], "student": {"kind": "none"}}}
"""Other sections without which a kind is refused."""

KINDS = [(section, kind) for section, kinds in kinds_of(Config).items() for kind in kinds.models]


@pytest.mark.parametrize(("section", "kind"), KINDS)
def test_what_is_loaded_is_valid_under_the_schema(section, kind):
    """Editors validate with the schema: it accepts every kind, with and without its name where `method` sets it."""
    model = kinds_of(Config)[section].models[kind]
    values = model(**{kinds_of(Config)[section].by: kind}, **REQUIRED.get(kind, {})).model_dump(mode="json")
    assert load(BASE | SUITED.get(kind, {}) | {section: values}).model_dump(mode="json")[section] == values
    validate = jsonschema.Draft202012Validator(config_docs.schema()).validate
    validate(BASE | {section: values})
    values.pop(kinds_of(Config)[section].by)
    validate(BASE | {section: values})
    with pytest.raises(jsonschema.ValidationError):
        validate(BASE | {section: {**values, "nonsense": 1}})
    with pytest.raises(jsonschema.ValidationError):
        validate(BASE | {"fuse": {"alpha": 1, "gate": 1}})


@settings(max_examples=60)
@given(st.floats(0, 10), st.integers(0, 50))
def test_loading_what_was_dumped_changes_nothing(alpha, passes):
    config = load(BASE | {"fuse": {"alpha": alpha}, "cut": {"passes": passes}})
    assert Config.model_validate(config.model_dump(mode="json")) == config


IDLE = [
    ({"student.kind": "none"}, {"train.lr_adapter": 0.1}, "train.lr_adapter", "student.kind none"),
    ({"student.kind": "none"}, {"train.head": "linear"}, "train.head", "student.kind none"),
    ({"student.kind": "none"}, {"sew.q": 0.1}, "sew.q", "student.kind none"),
    ({"student.kind": "none"}, {"explain.kind": "none"}, "explain.kind", "student.kind none"),
    ({"sew.kind": "none"}, {"select.top_k": 3}, "select.top_k", "sew.kind none"),
    ({"score.rule": "tagclip"}, {"fuse.alpha": 0.5}, "fuse.alpha", "score.rule tagclip"),
    ({"train.em_weight": 0}, {"train.lr_estimator": 0.5}, "train.lr_estimator", "train.em_weight 0.0"),
    ({"train": {"head": "linear", "lr": 0.1}}, {"train.rates": [0.1]}, "train.rates", "train.lr 0.1"),
    ({}, {"targets.sharpen": 2}, "targets.sharpen", "targets.labels_per_image unset"),
    ({}, {"references.smoothing": 0.2}, "references.smoothing", "references.kinds unset"),
    ({}, {"prompts.wordings": "best"}, "prompts.wordings", "prompts.names unset"),
    (
        {"dataset": {"kind": "voc", "root": "x"}},
        {"dataset.protocol": "common"},
        "dataset.protocol",
        "dataset.benchmark",
    ),
    (
        {"teacher": {"kind": "scores", "scores": {"file": "s.npz"}}},
        {"prompts.background": ["sky"]},
        "prompts.background",
        "teacher.kind scores",
    ),
]


@pytest.mark.parametrize(("first", "idle", "name", "because"), IDLE, ids=str)
def test_a_setting_that_nothing_reads_is_refused(first, idle, name, because):
    raw = override(BASE, first)
    load(raw)
    says = f"{name}: has no effect with {because}"
    with pytest.raises(UserError, match=f"^{re.escape(says)}.*; leave it out, or change "):
        load(override(raw, idle))
    with pytest.raises(UserError, match=f"^{re.escape('runs.one: ' + says)}"):
        load({**raw, "runs": {"one": idle}})


@pytest.mark.parametrize(("first", "idle"), [case[:2] for case in IDLE[:6] if "train.head" not in case[1]])
def test_a_variant_does_not_inherit_what_it_does_not_read(first, idle):
    load({**override(BASE, idle), "runs": {"one": first}})
    load(with_command_line(override(BASE, idle), first))


@pytest.mark.parametrize("method", ["paper", "released", "cutsew"])
def test_what_a_method_sets_is_left_out_where_it_is_idle(method):
    for changes in ({"student.kind": "none"}, {"sew.kind": "none"}, {"score.rule": "tagclip"}):
        load(override({**BASE, "method": method}, changes))
