"""Fusion (Eq. 7)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.config.method import parse_fuse
from cutsew.method.fuse import (
    WHOLE,
    extremes,
    fuse,
    fuse_cdul,
    fuse_gated,
    fuse_mean,
    fuse_soft,
    fuse_standard,
    standardized,
)
from cutsew.method.metrics import average_precision, mean_average_precision
from cutsew.method.score import logit, sigmoid, softmax
from cutsew.pipeline.fusing import fuse_by_rule
from cutsew.storage.zarr_layout import Answers

logits = st.floats(-13, 13, width=32)


def test_by_hand():
    zero_shot = np.array([[2.0, -1.0, -3.0]], dtype=np.float32)
    crops = np.array([[[2.05, -0.5, -3.5]], [[1.0, 0.5, -2.5]]], dtype=np.float32)
    z, winner = fuse(zero_shot, crops, 0.1, "logit", 1e-6)
    # class 0: 2.05 - 0.1 < 2; class 1: -0.6, then 0.4; class 2: -3.6 < -3, then -2.6
    assert z[0] == pytest.approx([2.0, 0.4, -2.6], abs=1e-6)
    assert winner.tolist() == [[WHOLE, 1, 1]]


def test_probability_space_by_hand():
    zero_shot = np.log(np.array([[0.5 / 0.5, 0.2 / 0.8]]))
    crops = np.log(np.array([[[0.55 / 0.45, 0.6 / 0.4]]]))
    z, winner = fuse(zero_shot, crops, 0.1, "probability", 1e-6)
    # 0.55 - 0.1 < 0.5; 0.6 - 0.1 = 0.5, whose logit is 0
    assert z[0] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert winner.tolist() == [[WHOLE, 0]]


def test_equal_views_leave_the_first():
    zero_shot = np.zeros((1, 2), dtype=np.float32)
    crops = np.array([[[0, 1]], [[0, 1]]], dtype=np.float32)
    assert fuse(zero_shot, crops, 0.0, "logit", 1e-6)[1].tolist() == [[WHOLE, 0]]


def test_no_passes_leave_the_whole_image():
    zero_shot = np.array([[1.0, -1.0]], dtype=np.float32)
    z, winner = fuse(zero_shot, np.empty((0, 1, 2), dtype=np.float32), 0.1, "logit", 1e-6)
    assert np.array_equal(z, zero_shot) and (winner == WHOLE).all()


@given(
    arrays(np.float32, (3, 4), elements=logits),
    arrays(np.float32, (5, 3, 4), elements=logits),
    st.floats(0, 2),
    st.sampled_from(["logit", "probability"]),
)
def test_fused_is_nowhere_below_zero_shot(zero_shot, crops, alpha, space):
    z, winner = fuse(zero_shot, crops, alpha, space, 1e-9)
    assert (z >= zero_shot - 1e-3 * (space == "probability")).all()
    assert ((winner >= WHOLE) & (winner < 5)).all()
    assert np.array_equal(z[winner == WHOLE], zero_shot[winner == WHOLE])


@given(arrays(np.float32, (2, 3), elements=logits), arrays(np.float32, (4, 2, 3), elements=logits), st.floats(0, 2))
def test_equals_the_plain_maximum(zero_shot, crops, alpha):
    z, _ = fuse(zero_shot, crops, alpha, "logit", 1e-6)
    assert z == pytest.approx(np.maximum(zero_shot, (crops - alpha).max(axis=0)), abs=1e-5)


@given(arrays(np.float32, (2, 3), elements=logits), arrays(np.float32, (4, 2, 3), elements=logits), st.floats(0, 2))
def test_equals_the_papers_loop_bit_for_bit(zero_shot, crops, alpha):
    z = zero_shot
    for crop in crops:  # Eq. 7, view by view
        z = np.maximum(z, crop - alpha)
    assert np.array_equal(fuse(zero_shot, crops, alpha, "logit", 1e-6)[0], z)


def test_images_without_scores_have_no_highest_crop():
    found = extremes(np.full((2, 1, 1), np.nan, np.float32), np.full((1, 1), np.nan, np.float32), lowest=True)
    assert found.highest_view.tolist() == found.lowest_view.tolist() == [[WHOLE]]


def test_gated_by_hand():
    p0 = np.array([[0.5, 0.2, 0.9]])
    crops = np.array([[[0.505, 0.6, 0.8]], [[0.52, 0.605, 0.95]]])
    z, winner = fuse_gated(np.log(p0 / (1 - p0)), np.log(crops / (1 - crops)), 0.01)
    # class 0: 0.505 gains 0.005, 0.52 gains 0.02; class 1: 0.6, of which 0.605 gains 0.005; class 2: 0.95
    assert 1 / (1 + np.exp(-z[0])) == pytest.approx([0.52, 0.6, 0.95], abs=1e-6)
    assert winner.tolist() == [[1, 0, 1]]


@given(
    arrays(np.float32, (2, 3), elements=logits), arrays(np.float32, (4, 2, 3), elements=logits), st.floats(0.001, 0.5)
)
def test_gated_leaves_out_no_more_than_the_gate(zero_shot, crops, gate):
    z, winner = fuse_gated(zero_shot, crops, gate)
    largest = np.maximum(zero_shot, crops.max(axis=0))
    assert (z >= zero_shot).all() and (z <= largest).all()
    assert (1 / (1 + np.exp(-largest)) - 1 / (1 + np.exp(-z)) < gate + 1e-5).all()
    assert np.array_equal(z[winner == WHOLE], zero_shot[winner == WHOLE])
    of_views = np.concatenate([zero_shot[None], crops])
    assert np.array_equal(np.take_along_axis(of_views, winner[None].astype(int) + 1, axis=0)[0], z)


@given(arrays(np.float32, (2, 3), elements=logits), arrays(np.float32, (4, 2, 3), elements=logits))
def test_without_a_gate_it_is_the_plain_maximum(zero_shot, crops):
    assert np.array_equal(fuse_gated(zero_shot, crops, 0.0)[0], np.maximum(zero_shot, crops.max(axis=0)))


def test_soft_by_hand():
    zero_shot = np.array([[0.0, -1.0]])
    crops = np.array([[[0.6, -1.0]], [[0.1, 2.1]]])
    z, winner = fuse_soft(zero_shot, crops, alpha=0.1, tau=0.5, anchor=0.2)
    # class 0: terms 0, 0.5, 0 -> 0.5 log((1 + e + 1) / 3) = 0.5 log 1.572761 = 0.226416; 0.8 of it + 0.2 * 0
    # class 1: terms -1, -1.1, 2 -> 0.5 log((e^-2 + e^-2.2 + e^4) / 3) = 0.5 log 18.281221 = 1.452932; - 0.2
    assert z[0] == pytest.approx([0.181133, 0.962346], abs=1e-5)
    assert winner.tolist() == [[0, 1]]


@given(arrays(np.float32, (2, 3), elements=logits), arrays(np.float32, (4, 2, 3), elements=logits), st.floats(0, 2))
def test_soft_becomes_the_papers_rule(zero_shot, crops, alpha):
    """In the limit tau -> 0, without an anchor, it is Eq. 7, winner and all."""
    z, winner = fuse_soft(zero_shot, crops, alpha, tau=1e-4, anchor=0.0)
    expected, expected_winner = fuse(zero_shot, crops, alpha, "logit", 1e-6)
    assert z == pytest.approx(expected, abs=1e-3)
    assert np.array_equal(winner, expected_winner)


@given(
    arrays(np.float32, (2, 3), elements=logits),
    arrays(np.float32, (4, 2, 3), elements=logits),
    st.floats(0, 2),
    st.floats(0.05, 2),
    st.floats(0, 1),
)
def test_soft_lies_between_the_whole_image_and_the_maximum(zero_shot, crops, alpha, tau, anchor):
    z, _ = fuse_soft(zero_shot, crops, alpha, tau, anchor)
    largest, _ = fuse(zero_shot, crops, alpha, "logit", 1e-6)
    least = (1 - anchor) * (largest - tau * np.log(5)) + anchor * zero_shot
    assert (z <= (1 - anchor) * largest + anchor * zero_shot + 1e-4).all() and (z >= least - 1e-4).all()


def z_of(p):
    return np.log(np.array(p) / (1 - np.array(p)))


def test_mean_by_hand():
    z, winner = fuse_mean(z_of([[0.5, 0.2]]), z_of([[[0.8, 0.1]], [[0.2, 0.6]]]), 1e-6)
    # (0.5 + 0.8 + 0.2) / 3 = 0.5 and (0.2 + 0.1 + 0.6) / 3 = 0.3
    assert sigmoid(z)[0] == pytest.approx([0.5, 0.3], abs=1e-6)
    assert winner.tolist() == [[0, 1]]


def test_cdul_by_hand():
    zero_shot = z_of([[0.9, 0.1, 0.4]])
    crops = z_of([[[0.3, 0.7, 0.2]], [[0.6, 0.2, 0.45]]])
    z, winner = fuse_cdul(zero_shot, crops, 0.5, 1e-6)
    # class 0: the crops' most, 0.6, is at least 0.5: (0.9 + 0.6) / 2; class 1: (0.1 + 0.7) / 2
    # class 2: 0.45 is less than 0.5, so their least counts: (0.4 + 0.2) / 2
    assert sigmoid(z)[0] == pytest.approx([0.75, 0.4, 0.3], abs=1e-6)
    assert winner.tolist() == [[1, 0, 0]]
    assert sigmoid(fuse_cdul(zero_shot, crops, 0.44, 1e-6)[0])[0, 2] == pytest.approx(0.425, abs=1e-6)


def test_without_crops_mean_and_cdul_leave_the_whole_image():
    zero_shot, none = np.array([[1.0, -1.0]], dtype=np.float32), np.empty((0, 1, 2), dtype=np.float32)
    for z, winner in (fuse_mean(zero_shot, none, 1e-6), fuse_cdul(zero_shot, none, 0.5, 1e-6)):
        assert z == pytest.approx(zero_shot, abs=1e-6) and (winner == WHOLE).all()


@given(
    arrays(np.float32, (2, 3), elements=logits),
    arrays(np.float32, (4, 2, 3), elements=logits),
    st.floats(0, 1),
    st.permutations(range(4)),
)
def test_mean_and_cdul_take_the_crops_in_any_order_and_lie_between_them(zero_shot, crops, zeta, order):
    views = sigmoid(np.concatenate([zero_shot[None], crops]).astype(np.float64))
    for rule in (lambda c: fuse_mean(zero_shot, c, 1e-9), lambda c: fuse_cdul(zero_shot, c, zeta, 1e-9)):
        z, winner = rule(crops)
        assert rule(crops[list(order)])[0] == pytest.approx(z, abs=1e-4)
        assert (sigmoid(z) <= views.max(axis=0) + 1e-5).all() and (sigmoid(z) >= views.min(axis=0) - 1e-5).all()
        assert ((winner >= WHOLE) & (winner < 4)).all()


@given(arrays(np.float32, (2, 3), elements=logits), arrays(np.float32, (1, 2, 3), elements=logits), st.floats(0, 1))
def test_of_one_crop_cdul_is_the_mean(zero_shot, crop, zeta):
    assert fuse_cdul(zero_shot, crop, zeta, 1e-9)[0] == pytest.approx(fuse_mean(zero_shot, crop, 1e-9)[0], abs=1e-5)


def test_standard_by_hand():
    # whole: mean 1, deviation sqrt(2 / 3); crop 0: mean 3, deviation sqrt(6); crop 1: mean 0, deviation sqrt(2)
    zero_shot = np.array([[2.0, 1.0, 0.0]])
    crops = np.array([[[0.0, 3.0, 6.0]], [[1.0, -2.0, 1.0]]])
    z, winner = fuse_standard(zero_shot, crops)
    # whole 1.224745, 0, -1.224745; crop 0 -1.224745, 0, 1.224745; crop 1 0.707107, -1.414214, 0.707107
    assert z[0] == pytest.approx([1.931852, 0.0, 0.0], abs=1e-6)
    assert winner.tolist() == [[1, 0, 0]]


def test_standard_as_a_soft_maximum_by_hand():
    zero_shot, crops = np.array([[2.0, 1.0, 0.0]]), np.array([[[0.0, 3.0, 6.0]]])
    z, winner = fuse_standard(zero_shot, crops, tau=1.0)
    # 2 log((e^1.224745 + e^-1.224745) / 2) = 2 log cosh 1.224745 = 2 * 0.614410
    assert z[0] == pytest.approx([1.228820, 0.0, 1.228820], abs=1e-5)
    assert winner.tolist() == [[WHOLE, WHOLE, 0]]
    assert fuse_standard(zero_shot, crops, tau=1e-4)[0][0] == pytest.approx([2.449490, 0.0, 2.449490], abs=1e-3)


@pytest.mark.parametrize("tau", [None, 0.5])
def test_standard_without_crops_is_the_whole_image_twice(tau):
    z, winner = fuse_standard(np.array([[2.0, 1.0, 0.0]]), np.empty((0, 1, 3)), tau)
    assert z[0] == pytest.approx([2.449490, 0.0, -2.449490], abs=1e-6)
    assert (winner == WHOLE).all()


def test_a_view_that_prefers_no_class_says_nothing():
    assert standardized(np.array([[-13.8, -13.8, -13.8], [0.1, 0.1 + 1e-9, 0.1]])).tolist() == [[0.0] * 3] * 2
    z, _ = fuse_standard(np.array([[2.0, 1.0, 0.0]]), np.full((1, 1, 3), -5.0))
    assert z[0] == pytest.approx([1.224745, 0.0, -1.224745], abs=1e-6)
    assert np.isnan(fuse_standard(np.full((1, 3), np.nan), np.full((1, 1, 3), np.nan))[0]).all()


@given(
    arrays(np.float64, (2, 4), elements=st.integers(-9, 9)),
    arrays(np.float64, (3, 2, 4), elements=st.integers(-9, 9)),
    arrays(np.float64, (4, 2, 1), elements=st.floats(-20, 20)),
    arrays(np.float64, (4, 2, 1), elements=st.floats(0.1, 10)),
    st.permutations(range(4)),
    st.sampled_from([None, 0.5]),
)
def test_standard_ignores_each_views_zero_and_unit_and_the_order_of_classes(
    zero_shot, crops, shift, factor, order, tau
):
    z, winner = fuse_standard(zero_shot, crops, tau)
    other, _ = fuse_standard(factor[0] * zero_shot + shift[0], factor[1:] * crops + shift[1:], tau)
    assert other == pytest.approx(z, abs=1e-5)
    permuted, its_winner = fuse_standard(zero_shot[:, order], crops[..., order], tau)
    assert permuted == pytest.approx(z[:, order], abs=1e-5)
    best = np.take_along_axis(standardized(np.concatenate([zero_shot[None], crops])), winner[None].astype(int) + 1, 0)
    its_best = np.take_along_axis(
        standardized(np.concatenate([zero_shot[None], crops])[..., order]), its_winner[None].astype(int) + 1, 0
    )
    assert its_best[..., :] == pytest.approx(best[..., order])


SHARED = Path(__file__).parents[4] / "shared" / "voc2012_rn50x64_scores.npz"


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_file(), reason="needs ../shared/voc2012_rn50x64_scores.npz")
def test_rules_side_by_side_on_real_scores():
    """On CLIP RN50x64's scores of 5,640 images; their one local view is per class the best of 3 x 3 tiles."""
    stored = np.load(SHARED)
    zero_shot, tiles = logit(stored["zero_shot"], 1e-6), logit(stored["best_tile"], 1e-6)[None]
    fused = {
        "zero-shot": zero_shot,
        "max, alpha 0.1": fuse(zero_shot, tiles, 0.1, "logit", 1e-6)[0],
        "gated": fuse_gated(zero_shot, tiles, 0.01)[0],
        "mean": fuse_mean(zero_shot, tiles, 1e-6)[0],
        "cdul": fuse_cdul(zero_shot, tiles, 0.5, 1e-6)[0],
        "standard": fuse_by_rule(parse_fuse({"rule": "standard"}), zero_shot, tiles, 0.0, 1e-6, Answers())[0],
    }
    result = {name: mean_average_precision(average_precision(stored["labels"], z)) for name, z in fused.items()}
    print("\n".join(f"{name:16} {value:.2f}" for name, value in result.items()))
    assert result["zero-shot"] == pytest.approx(84.86, abs=0.005)
    assert result["max, alpha 0.1"] == pytest.approx(87.78, abs=0.005)
    assert result["standard"] == pytest.approx(89.60, abs=0.005)
    assert min(value for name, value in result.items() if name != "zero-shot") > result["zero-shot"]


@given(
    arrays(np.float32, (3, 2), elements=st.floats(-60, 30, width=32)),
    arrays(np.float32, (4, 3, 2), elements=st.floats(-60, 30, width=32)),
    st.floats(0, 1),
)
def test_logits_of_a_sigmoid_are_fused_without_a_clamp(zero_shot, crops, zeta):
    """In extended precision; with a clamp all logits below -13.8 would come out equal."""
    for result, views in (
        (fuse_mean(zero_shot, crops, None)[0], [zero_shot, *crops]),
        (fuse_cdul(zero_shot, crops[:1], zeta, None)[0], [zero_shot, crops[0]]),
    ):
        wide = np.array(views, np.longdouble)
        yes, no = (1 / (1 + np.exp(-sign * wide)) for sign in (1, -1))
        assert result == pytest.approx(np.log(yes.sum(axis=0) / no.sum(axis=0)).astype(float), abs=1e-4)
    z, winner = fuse(zero_shot, crops, 0.0, "probability", None)
    assert z == pytest.approx(np.maximum(zero_shot, crops.max(axis=0)), abs=1e-2)


def test_strongly_negative_logits_keep_their_order():
    zero_shot, crops = np.array([[-20.0], [-25.0]], np.float32), np.array([[[-21.0], [-24.0]]], np.float32)
    result = {rule: parse_fuse({"rule": rule}) for rule in ("max", "gated", "mean", "cdul", "soft")}
    result["probability"] = parse_fuse({"space": "probability", "alpha": 0.0})
    for name, rule in result.items():
        z, _ = fuse_by_rule(rule, zero_shot, crops, 0.5, 1e-6, Answers("sigmoid"))
        assert z[0, 0] > z[1, 0] and z.max() < -9, name
    halved, _ = fuse_by_rule(
        parse_fuse({"rule": "soft", "alpha": 0, "anchor": 1}), zero_shot, crops, 0.5, 1e-6, Answers("sigmoid")
    )
    assert halved.tolist() == [[-10.0], [-12.5]]  # soften multiplies a sigmoid's logits


def test_standard_takes_a_sigmoids_logits_as_they_are_and_a_softmaxs_logarithms():
    """A shift of a softmax's similarities is lost in it, and must not matter; that of a sigmoid is there."""
    x = np.array([[3.0, 1.0, -2.0, 0.0]])
    crop = np.array([[[0.0, 4.0, 1.0, 1.0]]])
    expected, _ = fuse_standard(x, crop)
    rule = parse_fuse({"rule": "standard"})
    plain, _ = fuse_by_rule(rule, x, crop, 0.5, 1e-6, Answers("sigmoid"))
    assert plain == pytest.approx(expected - 0.5, abs=1e-6)
    z, crops = (logit(softmax(values), 1e-9) for values in (x, crop))
    result, _ = fuse_by_rule(rule, z, crops, 0.5, 1e-9, Answers())
    assert result == pytest.approx(expected - 0.5, abs=1e-5)
