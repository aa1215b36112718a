"""Fusion (Eq. 7)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.numerics.fuse import WHOLE, fuse, fuse_gated

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


def test_no_passes_leave_the_whole_photo():
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
