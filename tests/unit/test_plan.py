"""Which settings a stage reads, and which run's folder holds an artefact."""

import json
from pathlib import Path

import pytest

from cutsew.config import Config
from cutsew.errors import UserError
from cutsew.plan import DEFAULT, STAGES, Plan

BASE = {"classes": ["cat", "dog"], "correct": {"beta": 1}}


def plan(**runs):
    return Plan({**BASE, "runs": runs})


def test_stages_read_settings_that_exist():
    fields = Config(classes=["a", "b"]).model_dump()
    for stage in STAGES.values():
        for dotted in stage.reads:
            value = fields
            for part in dotted.split("."):
                value = value[part]


def test_stages_stand_after_stages_that_exist():
    seen = set()
    for name, stage in STAGES.items():
        assert set(stage.after) <= seen, name
        seen.add(name)


def test_params_hold_version_and_settings():
    assert json.loads(plan().params(DEFAULT, "select")) == {"version": 1, "select": {"top_k": 200}}


def test_params_leave_out_other_teachers():
    assert list(plan().settings(DEFAULT, "text")["teacher"]) == ["kind", "open_clip"]


@pytest.mark.parametrize(
    ("change", "remade"),
    [
        ({"fuse.alpha": 0.5}, {"fuse", "correct", "train", "predict", "evaluate", "report", "sweep_table"}),
        ({"correct.beta": 2}, {"correct", "train", "predict", "evaluate", "report", "sweep_table"}),
        ({"select.top_k": 3}, {"select", "train", "predict", "evaluate", "report", "sweep_table"}),
        ({"train.lr_adapter": 0.1}, {"train", "predict", "evaluate", "report", "sweep_table"}),
        ({"evaluate.top": 1}, {"evaluate", "report", "sweep_table"}),
        ({"compute.batch_size": 1}, set()),
        ({"teacher.conse.top": 9}, set()),
        (
            {"prompts.templates": ["{class}"]},
            set(STAGES) - {"tiny_clip", "demo_world", "manifest", "truth", "encode", "seal", "import_scores"},
        ),
        (
            {"cut.passes": 30},
            set(STAGES) - {"tiny_clip", "demo_world", "manifest", "truth", "text", "import_scores"},
        ),
    ],
)
def test_a_variant_makes_only_what_differs(change, remade):
    made = plan(variant=change)
    assert {stage for stage in STAGES if made.owner("variant", stage) == "variant"} == remade
    assert made.folder("variant", "demo_world") == Path("results/demo/default")


def test_variants_share_with_each_other():
    made = plan(a={"fuse": {"alpha": 0.5}}, b={"fuse.alpha": 0.5, "train.epochs": 2})
    assert made.owner("b", "fuse") == "a" and made.owner("b", "train") == "b"


def test_rebuilt_weights_take_the_place_of_the_shipped():
    shipped = {"kind": "open_clip", "open_clip": {"model": "cutsew-tiny", "pretrained": "demo"}}
    made = Plan({**BASE, "teacher": shipped, "demo": {"rebuild_teacher": True}})
    path = made.settings(DEFAULT, "text")["teacher"]["open_clip"]["pretrained"]
    assert path == "results/demo/default/cutsew-tiny.safetensors"


def test_a_bad_variant_is_named():
    with pytest.raises(UserError, match=r"runs\.x: fuse\.alpha: .*greater than or equal to 0"):
        plan(x={"fuse.alpha": -1})
