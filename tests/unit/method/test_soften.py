"""Softened answers, and the softening found without labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.method.score import logit, sigmoid, softmax
from cutsew.method.soften import WIDEST, fit_temperature, rescale_temperature

similarity = arrays(np.float64, (3, 4), elements=st.floats(-4, 4))


def test_by_hand():
    # softmax(x) = (0.8, 0.2) -> at half the scale (2, 1) / 3
    z = logit(np.array([[0.8, 0.2]]), 1e-6)
    assert sigmoid(rescale_temperature(z, 0.5, 1e-6))[0] == pytest.approx([2 / 3, 1 / 3])


@given(similarity, st.floats(0.1, 2))
def test_it_is_the_softmax_at_another_scale(x, factor):
    z = logit(softmax(x), 1e-12)
    assert rescale_temperature(z, factor, 1e-9) == pytest.approx(logit(softmax(factor * x), 1e-9), abs=1e-3)


@given(similarity, st.floats(0.1, 2))
def test_it_keeps_the_order_of_a_images_classes(x, factor):
    z = np.round(logit(softmax(x), 1e-12), 3)
    result = rescale_temperature(z, factor, 1e-9)
    above = z[:, :, None] > z[:, None, :]
    assert (result[:, :, None] >= result[:, None, :])[above].all()


@given(st.floats(0.4, 0.95), st.integers(0, 99))
def test_the_softening_that_is_found_gives_the_certainty(certainty, seed):
    z = logit(softmax(np.random.default_rng(seed).normal(0, 6, (50, 5))), 1e-12)
    factor = fit_temperature(z, certainty)
    assert sigmoid(rescale_temperature(z, factor, 1e-9)).max(axis=1).mean() == pytest.approx(certainty, abs=1e-4)


def test_where_none_is_found_it_is_the_end_of_the_range():
    undecided = np.full((2, 4), logit(np.array(0.25), 1e-6))
    assert fit_temperature(undecided, 0.6) == pytest.approx(WIDEST[1])


def test_what_background_words_took_competes_as_one_more_class():
    # 0.64 for the class, 0.36 for the background: at half the scale 8 : 6
    z = logit(np.array([[0.64]]), 1e-6)
    assert sigmoid(rescale_temperature(z, 0.5, 1e-6, rest=True))[0] == pytest.approx([8 / 14])


@given(similarity, st.floats(0.1, 2))
def test_with_one_background_word_it_is_the_softmax_at_another_scale(x, factor):
    z = logit(softmax(x), 1e-12)[:, :3]
    result = rescale_temperature(z, factor, 1e-9, rest=True)
    assert result == pytest.approx(logit(softmax(factor * x), 1e-9)[:, :3], abs=1e-3)


def test_the_softening_may_be_found_with_a_background():
    z = logit(softmax(np.random.default_rng(0).normal(0, 6, (50, 5))), 1e-12)
    with_all = fit_temperature(z, 0.7)
    assert fit_temperature(z[:, :4], 0.7, rest=True) == pytest.approx(with_all, rel=1e-2)
