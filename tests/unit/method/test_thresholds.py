"""Thresholds of naming: by hand, as invariants, and the stage."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic_run import CLASSES, make_run

import cutsew
from cutsew.errors import UserError
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import FEWEST, best_f1, count, count_few, expected_share, mixture, named
from cutsew.pipeline.graph import STAGES
from cutsew.stages.thresholds import thresholds
from cutsew.storage import result_tables as table
from cutsew.storage.manifest import read_manifest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.zarr_layout import label_spec
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.storage.zarr_writer import new_group

LOGITS = arrays(np.float32, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(-8, 8, width=16))


def test_the_expected_share_lies_between_floor_and_ceiling():
    assert expected_share(np.array([0.1, 0.2, 0]), np.array([0.4, 0.2, 0.5])) == pytest.approx([0.2, 0.2, 0])


def test_count_by_hand():
    z = np.array([[4.0, 1], [2, 1], [0, 1], [-2, 0]])
    # Half of four images: between 2 and 0, the sigmoid of 1. A quarter: one image, but three tie with it.
    assert count(z, np.array([0.5, 0.25])) == pytest.approx(sigmoid(np.array([1, 0.5])))
    # None: between the highest probability and 1. All: at the lowest logit.
    assert count(z, np.array([0.1, 1])) == pytest.approx([(sigmoid(np.array(4.0)) + 1) / 2, 0.5], rel=2e-6)
    assert count(z, np.array([0.1, 1]))[1] < 0.5  # so that float32 probabilities reach it too


@given(LOGITS, st.floats(0, 1))
def test_count_names_as_many_as_expected_and_those_that_tie(z, share):
    expected = round(share * len(z))
    result = named(z, count(z, np.full(2, share)))
    for c in range(2):
        last = np.sort(z[:, c])[::-1][expected - 1] if expected else np.inf
        assert np.array_equal(result[:, c], z[:, c] >= last)


def test_few_images_are_counted_by_gaussians():
    z = np.random.default_rng(0).normal(-2, 1.5, (200_000, 1)).astype(np.float32)
    (few,), (many,) = count_few(z[:30], np.array([0.05])), count(z, np.array([0.05]))
    assert abs(np.log(few / (1 - few)) - np.log(many / (1 - many))) < 1
    assert count_few(z, np.array([0.05])) == pytest.approx(many, abs=0.01)
    rare, common = count_few(z[:12], np.array([0.01])), count_few(z[:12], np.array([0.2]))
    assert rare > common  # where `count` names none of either, or one
    for share in (0.0, 1.0):
        assert 0 < count_few(z[:2], np.array([share])) < 1


def test_mixture_of_two_equal_gaussians_parts_them_in_the_middle():
    rng = np.random.default_rng(0)
    below, above = rng.normal(-3, 1, 20_000), rng.normal(2, 1, 20_000)
    (result,) = mixture(np.concatenate([below, above])[:, None])
    assert np.log(result / (1 - result)) == pytest.approx(-0.5, abs=0.05)
    # A ninth as many above: equal where (x + 3)^2 / 2 - (x - 2)^2 / 2 = log 9, so x = (log 9 - 2.5) / 5 = -0.0606.
    (result,) = mixture(np.concatenate([rng.normal(-3, 1, 90_000), rng.normal(2, 1, 10_000)])[:, None])
    assert np.log(result / (1 - result)) == pytest.approx((np.log(9) - 2.5) / 5, abs=0.08)


def test_mixture_tells_where_it_finds_none():
    few = np.random.default_rng(0).normal(size=(FEWEST - 1, 1))
    assert np.isnan(mixture(few)).all()
    assert np.isnan(mixture(np.full((50, 1), 2.0))).all()
    # A narrow group in the middle of a wide one: at both means the narrow one is the likelier.
    rng = np.random.default_rng(0)
    half = np.concatenate([rng.normal(0, 5, 300), rng.normal(0, 0.1, 3000)])[:, None]
    assert np.isnan(mixture(np.concatenate([half, -half]))).all()


def test_best_f1_by_hand():
    z = np.array([[3.0], [2], [1], [0], [-1]])
    truth = np.array([[1], [0], [1], [0], [0]], dtype=np.int8)
    # Named 1: F1 2/3. 2: 1/2. 3: 4/5, the best; 4: 2/3. Between 1 and 0.
    assert best_f1(truth, z) == pytest.approx([sigmoid(np.array(0.5))])
    assert np.isnan(best_f1(np.zeros((5, 1), dtype=np.int8), z)).all()
    # The second image is not counted: 1, then 1, 0, 0: best at two, as above but now with F1 1.
    truth[1] = -1
    assert best_f1(truth, z) == pytest.approx([sigmoid(np.array(0.5))])


def f1(truth, z, threshold):
    result, counted = named(z[:, None], np.array([threshold]))[:, 0], truth >= 0
    right = (result & (truth == 1)).sum()
    return 2 * right / max(1, (result & counted).sum() + (truth == 1).sum())


@given(LOGITS, st.data())
def test_no_threshold_has_a_better_f1(z, data):
    truth = data.draw(arrays(np.int8, z.shape, elements=st.sampled_from([-1, 0, 1])))
    for c, result in enumerate(best_f1(truth, z)):
        assert np.isnan(result) == (not (truth[:, c] == 1).any())
        if not np.isnan(result):
            best = max(f1(truth[:, c], z[:, c], float(t)) for t in sigmoid(z[:, c].astype(np.float64)))
            assert f1(truth[:, c], z[:, c], result) == pytest.approx(best)


STAGES_GIVEN = {"logits": "zero_shot", "refined": "refined", "pseudo": "pseudo", "scores": "student"}


def run(folder, given, rule="count", only=tuple(STAGES_GIVEN), **settings):
    thresholds(
        given["images"],
        folder / "thresholds.csv",
        stage=[f"{STAGES_GIVEN[name]}={given[name]}" for name in only],
        settings={"thresholds": {"rule": rule}, "evaluate": {}, **settings},
    )
    return pd.read_csv(folder / "thresholds.csv")


def test_golden(tmp_path):
    """Raise the stage's version in plan.py when these numbers change."""
    every = run(tmp_path, make_run(tmp_path, train=60, test=40, images=False))
    assert STAGES["thresholds"].version == 4
    assert list(dict.fromkeys(every["stage"])) == ["zero_shot", "pseudo", "refined", "student"]
    result = every[every["stage"] == "student"].reset_index(drop=True)
    assert result["class"].tolist() == list(CLASSES) and set(result["rule"]) == {"count"}
    assert result["chosen"].equals(result["count"]) and set(result["fixed"]) == {0.5} and set(result["images"]) == {40}
    for name, expected in GOLDEN.items():
        assert result[name].tolist() == pytest.approx(expected, abs=1e-3), name
    record = json.loads((tmp_path / "thresholds.json").read_text())
    assert set(record["outputs"]) == {"thresholds.csv"}
    assert set(record["inputs"]) == {"images.parquet", "scores.zarr", "refined.zarr", "logits.zarr", "pseudo.zarr"}


GOLDEN = {
    "count": [0.86525, 0.86419, 0.77644],
    "mixture": [0.38004, 0.70423, 0.42124],
    "expected": [13.23266, 14.4263, 15.96116],
    "named_fixed": [25, 24, 25],
    "named_count": [13, 14, 16],
    "named_mixture": [26, 21, 25],
}


def test_labels_of_a_chosen_number_are_taken_at_their_word(tmp_path):
    given = make_run(tmp_path, train=60, test=40, images=False)
    refined = sigmoid(read(array_of(open_group(given["refined"]), "z")).astype(float))
    for number, expected in (
        (None, GOLDEN["expected"]),
        ("auto", 40 * refined.mean(axis=0)),
        (1.5, 40 * refined.mean(axis=0)),
    ):
        result = run(tmp_path, given, targets={"labels_per_image": number})
        result = result[result["stage"] == "student"]
        assert result["expected"].tolist() == pytest.approx(list(expected), abs=1e-3)
        assert result["named_count"].tolist() == np.rint(result["expected"]).astype(int).tolist()


def test_without_a_student_every_stage_has_thresholds_of_the_labels_count(tmp_path):
    given = make_run(tmp_path, train=60, test=40, images=False)
    result = run(tmp_path, given, only=("logits", "pseudo"))
    read_back = table.RunThresholds(0.5, table.read_thresholds(tmp_path / "thresholds.csv", list(CLASSES)))
    train = read_manifest(given["images"], split="train")["id"].tolist()
    for stage, name in (("zero_shot", "logits"), ("pseudo", "pseudo")):
        rows = result[result["stage"] == stage]
        assert rows["named_count"].tolist() == np.rint(rows["expected"]).astype(int).tolist()
        z = StagePredictions(stage, given[name]).read(train)
        assert named(z, read_back.of(stage, 3)).sum(axis=0).tolist() == rows["named_count"].tolist()
    assert read_back.of("student", 3).tolist() == [0.5] * 3 and read_back.in_words("student").startswith("fixed: ")
    assert read_back.in_words("pseudo") == read_back.in_words() == table.rule_in_words("count")


@pytest.mark.parametrize(("test", "few"), [(0, False), (1, False), (12, True), (39, True), (40, False)])
def test_few_held_out_images_set_a_students_thresholds_by_gaussians(tmp_path, test, few):
    given = make_run(tmp_path, train=60, test=test, images=False)
    if not test:
        group = {"image": np.array([], str), "class": CLASSES}
        with new_group(tmp_path / "scores.zarr", {"z": label_spec(0, 3, 1)}, group):
            pass
        given |= {"scores": tmp_path / "scores.zarr"}
    result = run(tmp_path, given)
    rows = result[result["stage"] == "student"]
    assert json.loads((tmp_path / "thresholds.json").read_text())["facts"]["few_held_out"] == few
    splits = read_manifest(given["images"])
    held_out = splits.loc[splits["split"] == "test", "id"].tolist()
    if few:
        z = StagePredictions("student", given["scores"]).read(held_out)
        share = rows["expected"].to_numpy() / test
        assert rows["count"].tolist() == pytest.approx(count_few(z, share).tolist(), abs=1e-6)
    labels = result[result["stage"] == "refined"]  # of training images: exact as always
    assert labels["named_count"].tolist() == np.rint(labels["expected"]).astype(int).tolist()


def test_rule_fixed_is_the_threshold_of_evaluate(tmp_path):
    given = make_run(tmp_path, train=60, test=40, images=False)
    assert set(run(tmp_path, given, rule="fixed", evaluate={"threshold": 0.3})["chosen"]) == {0.3}


def test_without_held_out_images_the_refined_labels_stand_in(tmp_path):
    given = make_run(tmp_path, train=30, test=0, images=False)
    with new_group(
        tmp_path / "scores.zarr", {"z": label_spec(0, 3, 1)}, {"image": np.array([], str), "class": CLASSES}
    ):
        pass
    result = run(tmp_path, given | {"scores": tmp_path / "scores.zarr"}, rule="mixture")
    result = result[result["stage"] == "student"]
    assert set(result["images"]) == {30} and result["chosen"].equals(result["mixture"])


def test_the_table_is_read_as_it_was_written(tmp_path):
    run(tmp_path, make_run(tmp_path, train=60, test=40, images=False))
    result = table.read_thresholds(tmp_path / "thresholds.csv", list(CLASSES))["student"]
    assert result.rule == "count" and set(result.by_rule) == {"fixed", "count", "mixture"}
    written = pd.read_csv(tmp_path / "thresholds.csv").query("stage == 'student'")
    assert result.choose("mixture").tolist() == written["mixture"].tolist()
    assert result.choose().tolist() == written["count"].tolist()
    with pytest.raises(UserError, match="--rule: this model has no thresholds labels; it has fixed, count, mixture"):
        result.choose("labels")
    with pytest.raises(UserError, match="its classes are not the model's"):
        table.read_thresholds(tmp_path / "thresholds.csv", ["other"])
    (tmp_path / "thresholds.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table of thresholds"):
        table.read_thresholds(tmp_path / "thresholds.csv", list(CLASSES))


SOURCE = Path(cutsew.__file__).parent
IN_FLOAT64 = {"method/thresholds.py", "api.py"}
"""Modules that may compare probabilities with thresholds: `named`, and the API's table of float64 probabilities."""


def test_labels_are_decided_in_one_place():
    """Elsewhere a comparison in float32 would count other labels than labels.csv has; see `thresholds.named`."""
    deciding = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.GtE):
                right = ast.unparse(node.comparators[0])
                if re.search(r"threshold|limit", right.split("[")[0]):
                    deciding.add(path.relative_to(SOURCE).as_posix())
    assert deciding == IN_FLOAT64
