"""Which images to look at next: worked examples and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.method.review import decided, disagreement, uncertainty, unlike


def test_a_threshold_is_a_toss_up():
    z = np.array([[0.0, np.log(3), -2.0]])  # probabilities 0.5, 0.75 and 0.119
    assert decided(z, np.array([0.5, 0.75, 0.119203]))[0] == pytest.approx([0.5] * 3, abs=1e-5)
    assert decided(z, np.full(3, 0.5))[0] == pytest.approx([0.5, 0.75, 0.1192], abs=1e-4)


def test_scores_by_hand():
    first, second = np.array([[0.9, 0.4], [1, 0]]), np.array([[0.5, 0.4], [1, 1]])
    assert uncertainty(first) == pytest.approx([0.5, 0])
    assert disagreement([first, second]) == pytest.approx(np.array([[0.4, 0], [0, 1]]))
    assert (disagreement([first]) == 0).all()


def test_each_group_of_alike_images_is_looked_at_once():
    corners = np.eye(4).repeat(5, axis=0) + np.random.default_rng(0).normal(0, 0.01, (20, 4))
    scores = np.linspace(2, 1, 20)
    chosen = unlike(corners, scores, 4)
    assert chosen.tolist() == [0, 5, 10, 15]  # the highest score of each group, in the order of the scores


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 9))
def test_as_many_as_asked_for_each_once_in_the_order_of_scores(n, count, different, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(different, 3))[rng.integers(different, size=n)]  # images that are equal, too
    scores = rng.integers(0, 3, n).astype(float)
    chosen = unlike(features, scores, count)
    assert len(chosen) == len(set(chosen.tolist())) == min(n, count)
    assert (np.diff(scores[chosen]) <= 0).all()
    assert np.array_equal(chosen, unlike(features, scores, count))
