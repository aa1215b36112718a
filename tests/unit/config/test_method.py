"""`method: released` and `method: cutsew` fill in what the user leaves open, and the workflow follows."""

import pytest

from cutsew.config import load, override
from cutsew.config.loading import DEFAULT, METHODS, apply_preset
from cutsew.errors import UserError
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.plan import Plan

BASE = {"classes": ["cat", "dog", "bus"]}
RELEASED_BASE = {**BASE, "method": "released"}


def value(config, dotted):
    result = config.model_dump()
    for part in dotted.split("."):
        result = result[part]
    return result


ROWS = [(method, dotted) for method, rows in METHODS.items() for dotted in rows]


def base_with(dotted):
    """Select the adapter for the settings of its training, which `method: cutsew` sets for those who choose it."""
    of_adapter = dotted.startswith("train.") and dotted != "train.head"
    return {**BASE, "train": {"head": "adapter"}} if of_adapter else BASE


@pytest.mark.parametrize(("method", "dotted"), ROWS)
def test_every_row_differs_from_the_paper_and_can_be_set_alone(method, dotted):
    theirs, base = METHODS[method][dotted], base_with(dotted)
    assert value(load(base), dotted) != theirs
    assert value(load({**base, "method": method}), dotted) == theirs
    assert value(load(override(base, {dotted: theirs})), dotted) == theirs


@pytest.mark.parametrize(("method", "dotted"), ROWS)
def test_what_the_user_sets_stays(method, dotted):
    papers, base = value(load(BASE), dotted), base_with(dotted)
    assert value(load(override({**base, "method": method}, {dotted: papers})), dotted) == papers


def test_the_paper_is_left_as_it_is():
    for raw in (BASE, {**BASE, "method": "paper", "sew": {"q": 0.3}}):
        assert apply_preset(raw) == raw


def test_the_given_settings_are_not_changed():
    raw = {**RELEASED_BASE, "sew": {"q": 0.3}}
    assert apply_preset(raw)["sew"]["q"] == 0.3 and raw["sew"] == {"q": 0.3} and "cut" not in raw


def test_runs_are_filled_in_too():
    plan = Plan({**BASE, "sew": {"q": 0.3}, "runs": {"released": {"method": "released"}}})
    assert plan.runs[DEFAULT].cut.passes == 20 and plan.runs["released"].cut.passes == 30
    assert plan.runs["released"].sew.q == 0.3


def test_both_methods_can_be_run_side_by_side():
    plan = Plan({**BASE, "runs": {"released": {"method": "released"}}})
    local_values = {stage for stage in STAGES if plan.source_run("released", stage) == "released"}
    # every views.zarr has one M, so the released code's 30 passes are encoded apart
    assert local_values == set(STAGES) - {
        *(
            "tiny_clip",
            "demo_world",
            "download",
            "manifest",
            "truth",
            "reference_labels",
            "import_scores",
            "corrections",
        )
    }


def test_salient_images_follow_the_labels_that_they_are_chosen_by():
    changes = {"select.labels": "pseudo"}
    plan = Plan({**BASE, "runs": {"a": changes, "b": {**changes, "correct.beta": 2}, "c": {"correct.beta": 2}}})
    assert [plan.source_run(run, "select") for run in plan.runs] == [DEFAULT, "a", "b", DEFAULT]


def test_params_hold_the_settings_of_the_selected_rule():
    plan = Plan(BASE)
    assert plan.settings(DEFAULT, "fuse")["fuse"] == {
        "rule": "max",
        "passes": None,
        "space": "logit",
        "alpha": 0.1,
    }
    every = Plan({**BASE, "fuse": {"passes": 20}})
    assert every.params(DEFAULT, "fuse") == plan.params(DEFAULT, "fuse")
    gated = Plan({**BASE, "fuse": {"rule": "gated", "passes": 3}})
    assert gated.settings(DEFAULT, "fuse")["fuse"] == {"rule": "gated", "gate": 0.01, "passes": 3}
    standard = Plan({**BASE, "classes": ["a", "b", "c"], "fuse": {"rule": "standard"}})
    assert standard.settings(DEFAULT, "fuse")["fuse"] == {"rule": "standard", "passes": None, "tau": None}


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({**BASE, "method": "theirs"}, "method: input should be 'paper', 'released' or 'cutsew', not 'theirs'"),
        ({**RELEASED_BASE, "sew": 3}, "sew: input should be a valid dictionary"),
        ({**BASE, "fuse": {"passes": 21}}, "fuse.passes: 21 is more than the 20 passes of cut.layout random; lower it"),
    ],
)
def test_bad_settings(raw, line):
    with pytest.raises(UserError) as raised:
        load(raw)
    assert str(raised.value).startswith(line)


def test_a_layout_of_regions_sets_the_number_of_passes():
    levels = [{"grid": 2, "share": 0.6}, {"grid": 3, "share": 0.4}]
    tiles = load({**BASE, "cut": {"layout": "tiles", "tiles": levels}}).cut
    assert (tiles.num_passes, tiles.block_size) == (13, 10)
    assert tiles.placement()["tiles"] == [(2, 0.6), (3, 0.4)]
    windows = load({**BASE, "cut": {"layout": "windows"}}).cut
    assert (windows.num_passes, windows.block_size) == (36, 36)
    assert load({**BASE, "cut": {"layout": "spread", "passes": 7}}).cut.num_passes == 7
    with pytest.raises(UserError, match="fuse.passes: 10 is more than the 9 passes of cut.layout tiles; lower it"):
        load({**BASE, "cut": {"layout": "tiles"}, "fuse": {"passes": 10}})


@pytest.mark.parametrize(
    ("cut", "read"),
    [
        ({}, {"layout", "area", "aspect", "flip", "seed", "passes_per_job"}),
        ({"layout": "tiles"}, {"layout", "tiles", "passes_per_job"}),
        ({"layout": "windows"}, {"layout", "windows"}),
    ],
)
def test_encoding_reads_the_settings_of_its_layout(cut, read):
    assert set(Plan({**BASE, "cut": cut}).settings(DEFAULT, "encode")["cut"]) == read


def test_the_number_of_imported_passes_is_not_that_of_the_crops():
    scores = {"kind": "scores", "scores": {"file": "scores.npz"}}
    plan = Plan({**BASE, "teacher": scores, "fuse": {"passes": 50}})
    assert plan.settings(DEFAULT, "fuse")["fuse"]["passes"] == 50


def test_another_layout_encodes_again():
    plan = Plan({**BASE, "runs": {"spread": {"cut.layout": "spread"}, "tiles": {"cut.layout": "tiles"}}})
    assert plan.source_run("spread", "encode") == "spread" and plan.source_run("tiles", "encode") == "tiles"


@pytest.mark.parametrize(
    ("teacher", "layout"),
    [
        ({"kind": "open_clip", "open_clip": {"model": "RN50"}}, "windows"),
        ({"kind": "open_clip", "open_clip": {"model": "convnext_base"}}, "windows"),
        ({"kind": "open_clip", "open_clip": {"model": "cutsew-tiny", "pretrained": "demo"}}, "windows"),
        ({"kind": "open_clip", "open_clip": {"model": "ViT-B-32"}}, "tiles"),
        ({"kind": "open_clip", "open_clip": {"model": "ViTamin-S"}}, "tiles"),
        ({"kind": "open_clip", "open_clip": {"model": "MobileCLIP-S1"}}, "tiles"),
        ({"kind": "open_clip", "open_clip": {"model": "no such model"}}, "tiles"),
        ({"kind": "open_clip", "open_clip": {"model": "cutsew-tiny", "image_size": 96}}, "tiles"),
        ({"kind": "open_clip", "open_clip": {"model": "RN50", "image_size": 96}}, "tiles"),
        ({"kind": "open_clip", "open_clip": {"model": "RN50", "image_size": None}}, "windows"),
        ({"kind": "conse"}, "windows"),
    ],
)
def test_the_automatic_layout_is_what_the_tower_can_do(teacher, layout):
    raw = {**BASE, "teacher": teacher, "cut": {"layout": "auto"}}
    result = Plan(raw).runs[DEFAULT].cut.model_dump(mode="json")
    assert result["layout"] == layout
    plan = Plan(
        {**raw, "runs": {"same": {f"cut.{name}": value for name, value in result.items() if name != "passes_per_job"}}}
    )
    assert plan.source_run("same", "encode") == DEFAULT


def test_the_automatic_layout_of_a_model_from_the_hub_does_not_depend_on_the_cache(monkeypatch):
    teacher = {"kind": "open_clip", "open_clip": {"model": "hf-hub:org/name", "pretrained": None, "image_size": 224}}
    raw = {**BASE, "teacher": teacher, "cut": {"layout": "auto"}}
    before = Plan(raw).params(DEFAULT, "encode")
    monkeypatch.setattr("cutsew.pipeline.resolve.model_config", lambda model: {"vision_cfg": {"layers": [3, 4, 6, 3]}})
    assert Plan(raw).params(DEFAULT, "encode") == before
