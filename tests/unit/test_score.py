"""From embeddings to logits (Eq. 3-4)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.numerics.score import logit, score, sigmoid, softmax


def test_by_hand():
    views = np.array([[2.0, 0.0]])  # twice the unit vector
    text = np.array([[1.0, 0.0], [0.0, 1.0]])
    # cosines 1 and 0, scale ln 3: softmax 3/4 and 1/4, logits +-ln 3
    z = score(views, text, math.log(3), 1e-6)
    assert z.dtype == np.float32
    assert z[0] == pytest.approx([math.log(3), -math.log(3)], abs=1e-6)


def test_clamp():
    z = score(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [-1.0, 0.0]]), 100.0, 1e-6)
    bound = math.log((1 - 1e-6) / 1e-6)
    assert z[0] == pytest.approx([bound, -bound], rel=1e-6)


@given(arrays(np.float64, (3, 5), elements=st.floats(-12, 12)))
def test_logit_inverts_sigmoid(z):
    assert logit(sigmoid(z), 1e-9) == pytest.approx(z, abs=1e-5)


@given(arrays(np.float32, (4, 6), elements=st.floats(-100, 100, width=32)))
def test_softmax_sums_to_one_and_keeps_order(x):
    p = softmax(x)
    assert p.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert (np.diff(np.take_along_axis(p, np.argsort(x, axis=1), axis=1), axis=1) >= 0).all()


def test_sigmoid_of_large_values_is_quiet():
    with np.errstate(over="raise"):
        assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]


def test_passes_share_the_formula():
    rng = np.random.default_rng(0)
    views, text = rng.normal(size=(3, 4, 8)), rng.normal(size=(5, 8))
    assert np.array_equal(score(views, text, 10, 1e-6)[1], score(views[1], text, 10, 1e-6))


@given(st.integers(1, 40), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_a_views_logits_are_the_same_bits_whatever_stands_beside_it(width, before, seed):
    rng = np.random.default_rng(seed)
    views, text = rng.normal(size=(4, width)).astype(np.float16), rng.normal(size=(7, width))
    others = rng.normal(size=(before, width)).astype(np.float16)
    assert np.array_equal(score(np.concatenate([others, views]), text, 10, 1e-6)[before:], score(views, text, 10, 1e-6))


def test_many_views_and_classes_agree_with_the_formula_in_double_precision():
    rng = np.random.default_rng(0)
    views, text = rng.normal(size=(600, 64)), rng.normal(size=(80, 64))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    x = 10 * (views / np.linalg.norm(views, axis=1, keepdims=True)) @ text.T
    wanted = logit(softmax(x), 1e-6)
    assert np.abs(score(views, text, 10, 1e-6) - wanted).max() < 2e-5
