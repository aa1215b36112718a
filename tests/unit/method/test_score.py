"""From embeddings to logits (Eq. 3-4)."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.method.score import logit, score, sigmoid, softmax


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
    expected = logit(softmax(x), 1e-6)
    assert np.abs(score(views, text, 10, 1e-6) - expected).max() < 2e-5


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_sigmoid_by_hand():
    views, text = np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert score(views, text, 10.0, 0.4, bias=-16.0)[0].tolist() == [-6.0, -16.0]  # no clamp, whatever epsilon is
    assert score(views, text[:1], 10.0, 0.4, bias=-16.0).tolist() == [[-6.0]]  # one class is enough


@given(st.integers(1, 6), st.integers(1, 8), st.floats(0.1, 120), st.floats(-20, 5), st.integers(0, 99))
def test_sigmoid_is_scale_times_cosine_plus_bias(classes, width, scale, bias, seed):
    rng = np.random.default_rng(seed)
    views, text = rng.normal(size=(3, width)), unit(rng.normal(size=(classes, width)))
    z = score(views, text, scale, 1e-6, bias=bias)
    assert z == pytest.approx(scale * unit(views) @ text.T + bias, abs=2e-6 * scale + 1e-5)
    for c in range(classes):  # no class competes with another
        assert score(views, text[[c]], scale, 1e-6, bias=bias)[:, 0] == pytest.approx(z[:, c], abs=2e-6 * scale + 1e-5)


def test_background_by_hand():
    """Cosines 1, 0 and, of the background, 0 at scale ln 3: softmax 3/5, 1/5 and 1/5, of which the last is dropped."""
    views, text = np.array([[1.0, 0.0, 0.0]]), np.eye(3)
    z = score(views, text[:2], math.log(3), 1e-6, background=text[2:])
    assert sigmoid(z)[0] == pytest.approx([3 / 5, 1 / 5], abs=1e-6)
    one = score(views, text[:1], math.log(3), 1e-6, background=text[2:])
    assert sigmoid(one)[0] == pytest.approx([3 / 4], abs=1e-6)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_background_words_are_classes_that_are_dropped(classes, others, seed):
    rng = np.random.default_rng(seed)
    views, texts = rng.normal(size=(4, 6)), unit(rng.normal(size=(classes + others, 6)))
    z = score(views, texts[:classes], 3, 1e-9, background=texts[classes:])
    assert z == pytest.approx(score(views, texts, 3, 1e-9)[:, :classes], abs=1e-4)
    assert (sigmoid(z.astype(np.float64)).sum(axis=1) <= 1 + 1e-6).all()
    if classes > 1:  # and they only take from the classes
        assert (z <= score(views, texts[:classes], 3, 1e-9) + 1e-4).all()


def test_best_wording_by_hand():
    """Two wordings of the first class with cosines 0 and 1, one of the second with cosine 0: softmax of (1, 0)."""
    views, text = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0]])
    z = score(views, text, math.log(3), 1e-6, wordings=(2, 1))
    assert sigmoid(z)[0] == pytest.approx([3 / 4, 1 / 4], abs=1e-6)
    assert score(views, text, 2.0, 1e-6, wordings=(2, 1), bias=-1.0)[0].tolist() == [1.0, -1.0]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 3), st.integers(0, 99))
def test_the_best_wording_is_the_one_of_highest_similarity_in_each_view(sizes, others, seed):
    rng = np.random.default_rng(seed)
    views, text = rng.normal(size=(4, 6)), unit(rng.normal(size=(sum(sizes), 6)))
    background = unit(rng.normal(size=(others, 6))) if others else None
    x = 3 * unit(views) @ text.T
    starts = np.cumsum([0, *sizes])
    best = np.stack([x[:, a:b].max(axis=1) for a, b in itertools.pairwise(starts)], axis=1)
    whole = best if background is None else np.concatenate([best, 3 * unit(views) @ background.T], axis=1)
    expected = logit(softmax(whole)[:, : len(sizes)], 1e-6)
    z = score(views, text, 3, 1e-6, wordings=sizes, background=background)
    assert z == pytest.approx(expected, abs=1e-3)
    again = score(views, text, 3, 1e-6, wordings=sizes, bias=-3.0)
    assert again == pytest.approx(best - 3, abs=1e-4)
