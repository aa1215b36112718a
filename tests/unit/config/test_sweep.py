"""Sweeps: which runs a sweep file makes, and what they are called."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.config import load, override
from cutsew.config.dataset import DemoDatasetConfig
from cutsew.config.loading import check_run_name
from cutsew.config.sweep import (
    SweepConfig,
    add_runs,
    read_sweep,
    run_name,
    short_name,
    sweep_files,
    variants_of,
)
from cutsew.errors import UserError
from cutsew.pipeline.preflight import validate_inputs

BASE = {"classes": ["cat", "dog", "bus"], "fuse": {"alpha": 0.1}}
SWEEPS = Path(__file__).parents[3] / "config" / "sweeps"


def sweep(**parts):
    return SweepConfig(title="test", **parts)


def expand(parts, raw, source="sweep"):
    """Return the dotted settings of each run that differ from the base run, by the run's name."""
    return {variant.run: variant.changes for variant in variants_of(parts, raw, source)}


def test_a_grid_over_seeds_holds_what_differs_alone():
    result = expand(sweep(grid={"fuse.alpha": [0, 0.1, 0.5]}, seeds=[9, 10]), BASE)
    assert result == {
        "alpha=0": {"fuse.alpha": 0},
        "alpha=0+seed=10": {"fuse.alpha": 0, "train.seed": 10},
        "default": {},
        "seed=10": {"train.seed": 10},
        "alpha=0.5": {"fuse.alpha": 0.5},
        "alpha=0.5+seed=10": {"fuse.alpha": 0.5, "train.seed": 10},
    }


def test_grids_are_multiplied_and_named_in_the_order_of_the_settings():
    result = expand(sweep(grid={"sew.p": [0.1, 0.2], "fuse.alpha": [0.1, 0.2]}), BASE)
    assert list(result) == ["p=0.1", "alpha=0.2+p=0.1", "p=0.2", "alpha=0.2+p=0.2"]


def test_a_name_does_not_depend_on_the_sweep():
    of_grid = expand(sweep(grid={"correct.rule": ["identity"], "fuse.alpha": [0.1]}), BASE)
    of_list = expand(sweep(variants={"without correction": {"correct": {"rule": "identity"}}}), BASE)
    assert of_grid == of_list == {"correct.rule=identity": {"correct.rule": "identity"}}


def test_lists_and_grids_together():
    result = variants_of(
        sweep(variants={"full": {}, "plain": {"train.em_weight": 0.0}}, grid={"sew.p": [0.6, 0.5]}), BASE
    )
    assert [(v.run, v.label) for v in result] == [
        ("default", "full+p=0.6"),
        ("p=0.5", "full+p=0.5"),
        ("em_weight=0", "plain+p=0.6"),
        ("p=0.5+em_weight=0", "plain+p=0.5"),
    ]
    assert result[3].settings == {"train.em_weight": 0.0, "sew.p": 0.5} and result[3].seed == 9


def test_equal_settings_are_one_run():
    assert list(expand(sweep(grid={"cut.area": [[0.1, 0.2], [0.1, 0.20], [0.2, 1]]}), BASE)) == [
        "default",
        "area=0.2-1",
    ]


def test_seeds_of_runs_without_a_student_are_one():
    result = expand(sweep(grid={"fuse.alpha": [0.5]}, seeds=[1, 2]), {**BASE, "student": {"kind": "none"}})
    assert result == {"alpha=0.5": {"fuse.alpha": 0.5}}


def test_a_setting_that_keeps_another_from_being_filled_in_stays():
    (result,) = expand(sweep(variants={"x": {"train.labels": "fused", "train.epochs": 1}}), BASE).values()
    assert result == {"train.labels": "fused"}


@pytest.mark.parametrize(
    ("dotted", "name"),
    [
        ("fuse.alpha", "alpha"),
        ("train.seed", "seed"),
        ("cut.seed", "cut.seed"),
        ("fuse.rule", "fuse.rule"),
        ("student.open_clip.model", "student.open_clip.model"),
        ("prompts.names.cat", "prompts.names.cat"),
    ],
)
def test_short_names(dotted, name):
    assert short_name(dotted) == name


def test_texts_that_are_no_names_end_in_a_digest():
    one, two = expand(sweep(grid={"prompts.templates": [["a {class}"], ["a/{class}"]]}), BASE)
    assert one != two and one.startswith("templates=a__class_-")


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200), min_size=1, max_size=3))
def test_every_name_is_a_folder_and_tells_its_texts_apart(texts):
    grid = {"prompts.templates": [[f"{text}{{class}}"] for text in texts]}
    result = expand(sweep(grid=grid), BASE)
    assert len(result) == len(set(texts))
    for name in result:
        check_run_name(name)
        assert len(name) <= 120


def test_no_changes_are_the_base_run():
    assert run_name({}, load(BASE)) == "default"


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"grid": {"fuse.alhpa": [1]}}, "x.yaml: fuse.alhpa: unknown setting; did you mean alpha?"),
        ({"grid": {"fuse.alpha": [-1]}}, "x.yaml: fuse.alpha: input should be greater than or equal to 0, not -1"),
        ({"grid": {"dataset.name": ["a"]}}, "x.yaml: dataset.name: cannot vary"),
        ({"grid": {"compute.device": ["cpu"]}}, "x.yaml: compute.device: cannot vary"),
        ({"grid": {"train.seed": [1]}, "seeds": [2]}, "x.yaml: train.seed: is varied by `seeds` already"),
        ({"grid": {"sew.p": [0.1]}, "variants": {"a": {"sew.p": 0.2}}}, "x.yaml: variants.a: sew.p is in the grid too"),
    ],
)
def test_bad_settings_are_named(parts, line):
    with pytest.raises(UserError) as raised:
        expand(sweep(**parts), BASE, "x.yaml")
    assert str(raised.value).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("grid: {fuse.alpha: [1]}", "title: is not set"),
        ("title: x", "varies nothing"),
        ("title: x\ngrid: {fuse.alpha: []}", "grid.fuse.alpha: holds no value"),
        ("title: x\ngird: {}", "gird: unknown setting; did you mean grid?"),
        ("title: [", "not YAML"),
    ],
)
def test_bad_files_are_named(tmp_path, text, line):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        read_sweep(path)
    assert re.match(rf"{re.escape(str(path))}(, line 1)?: {re.escape(line)}", str(raised.value))
    assert "\n" not in str(raised.value)


def test_an_absent_file_names_those_there_are(tmp_path):
    (tmp_path / "alpha.yaml").write_text("")
    with pytest.raises(UserError, match=r"aplha\.yaml does not exist; there are alpha"):
        read_sweep(tmp_path / "aplha.yaml")


def test_runs_of_the_config_file_stay():
    raw = {**BASE, "runs": {"mine": {"fuse.alpha": 1}, "alpha=2": {"fuse": {"alpha": 2.0}}}}
    result = add_runs(raw, expand(sweep(grid={"fuse.alpha": [0.1, 2]}), raw))
    assert list(result["runs"]) == ["mine", "alpha=2"]
    raw["runs"]["alpha=2"] = {"fuse.alpha": 3}
    with pytest.raises(UserError, match=r"its run alpha=2 differs from runs\.alpha=2"):
        add_runs(raw, {"alpha=2": {"fuse.alpha": 2}})


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_fit_the_demo(path):
    raw = yaml.safe_load((SWEEPS.parent / "config.yaml").read_text())
    for changes in expand(read_sweep(path), raw, str(path)).values():
        load(override(raw, changes))


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("vit/*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_of_transformers_fit_theirs(path):
    raw = yaml.safe_load((SWEEPS.parent / "voc2007-vit.yaml").read_text())
    configs = [load(override(raw, changes)) for changes in expand(read_sweep(path), raw, str(path)).values()]
    validate_inputs(*(config.model_copy(update={"dataset": DemoDatasetConfig()}) for config in configs))
    assert sweep_files(f"vit/{path.stem}", SWEEPS) == [path] and path not in sweep_files("all", SWEEPS)


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("protocol/*.yaml")), ids=lambda path: path.stem)
def test_sweeps_of_the_protocol_fit_the_demo_and_real_images(path):
    base = "offline.yaml" if path.stem == "layouts-images" else "config.yaml"
    raw = {**yaml.safe_load((SWEEPS.parent / base).read_text()), "dataset": {}}
    validate_inputs(*(load(override(raw, changes)) for changes in expand(read_sweep(path), raw, str(path)).values()))
    assert sweep_files(f"protocol/{path.stem}", SWEEPS) == [path] and path not in sweep_files("all", SWEEPS)


def test_a_sweep_is_held_against_one_of_its_variants():
    result = sweep(grid={"fuse.alpha": [0, 0.5]}, against="alpha=0.5")
    assert len(variants_of(result, BASE)) == 2
    with pytest.raises(UserError, match="^x: against: paper is not one of the variants alpha=0, alpha=0.5$"):
        variants_of(result.model_copy(update={"against": "paper"}), BASE, "x")
