"""Order-persistent correction (Eq. 9, 21, 22)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.method.correct import correct
from cutsew.method.score import sigmoid


def logit(p):
    return math.log(p / (1 - p))


Z = np.array([[logit(0.25), logit(0.64), logit(0.01)]], dtype=np.float32)


def test_sqrt_by_hand():
    z, touched = correct(Z, "sqrt", 1)
    assert sigmoid(z)[0] == pytest.approx([0.25, 0.8, 0.01], abs=1e-6)
    assert touched.tolist() == [[False, True, False]]
    z, touched = correct(Z, "sqrt", 2)
    assert sigmoid(z)[0] == pytest.approx([0.5, 0.8, 0.01], abs=1e-6)
    assert touched.tolist() == [[True, True, False]]


def test_linear_by_hand():
    z, _ = correct(Z, "linear", 1, 0.1)
    assert sigmoid(z)[0] == pytest.approx([0.25, 0.1 + 0.9 * 0.64, 0.01], abs=1e-6)


def test_hard_by_hand():
    z, touched = correct(Z, "hard", 1)
    assert sigmoid(z)[0] == pytest.approx([0.25, 0.95, 0.05], abs=1e-6)
    assert touched.tolist() == [[False, True, True]]


def test_identity():
    z, touched = correct(Z, "identity", 2)
    assert np.array_equal(z, Z) and not touched.any()


@given(
    arrays(np.float32, (4, 6), elements=st.floats(-13.75, 13.75, width=32)),
    st.integers(1, 6),
    st.sampled_from(["sqrt", "linear"]),
)
def test_keeps_the_order_and_touches_beta_entries(z, beta, rule):
    corrected, touched = correct(z, rule, beta)
    assert (touched.sum(axis=1) == beta).all()
    assert np.array_equal(corrected[~touched], z[~touched])
    assert (corrected >= z).all()
    below = z[:, :, None] < z[:, None, :]
    assert (corrected[:, :, None] <= corrected[:, None, :] + 1e-5)[below].all()


@given(arrays(np.float64, (2, 3), elements=st.floats(-30, 30)))
def test_is_finite_far_out(z):
    assert np.isfinite(correct(z, "sqrt", 3)[0]).all()
