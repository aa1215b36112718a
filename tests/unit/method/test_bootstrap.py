"""Paired bootstrap of a difference in mAP."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from cutsew.method.bootstrap import difference, weighted_map


def test_weighted_map_by_hand():
    truth = np.array([[1], [0], [1]], dtype=np.int8)
    scores = np.array([[3.0], [2.0], [1.0]])
    weights = np.array([[1, 1, 1], [0, 2, 1], [2, 0, 0], [0, 3, 0]])
    # (1 + 2/3) / 2; one positive, third of three; only a positive; no positive at all
    with pytest.warns(RuntimeWarning):
        result = weighted_map(truth, scores, weights)
    assert result == pytest.approx([500 / 6, 100 / 3, 100, np.nan], nan_ok=True)


@given(st.integers(0, 10_000))
def test_weighted_map_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, 2, (12, 3)).astype(np.int8)
    truth[0] = 1
    scores, weights = rng.random((12, 3)), rng.integers(0, 4, 12)
    weights[0] = 1
    expected = [
        average_precision_score(truth[known, c] == 1, scores[known, c], sample_weight=weights[known])
        for c, known in enumerate((truth >= 0).T)
    ]
    assert weighted_map(truth, scores, weights[None])[0] == pytest.approx(100 * np.mean(expected))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(2)
    truth = (rng.random((400, 3)) < 0.3).astype(np.int8)
    return truth, truth + rng.normal(0, 1.5, truth.shape), truth + rng.normal(0, 0.7, truth.shape)


def test_a_real_difference_is_found(images):
    truth, worse, better = images
    result = difference(truth, [worse], [better], draws=200)
    expected = np.mean([100 * average_precision_score(truth[:, c], better[:, c]) for c in range(3)])
    expected -= np.mean([100 * average_precision_score(truth[:, c], worse[:, c]) for c in range(3)])
    assert result.points == pytest.approx(expected)
    assert 0 < result.low < result.points < result.high


def test_the_same_run_does_not_differ(images):
    truth, worse, _ = images
    assert difference(truth, [worse, worse], [worse], draws=100) == pytest.approx((0, 0, 0), abs=1e-9)


def test_turned_round_the_difference_changes_its_sign(images):
    truth, worse, better = images
    available, back = difference(truth, [worse], [better], draws=100), difference(truth, [better], [worse], draws=100)
    assert (back.points, back.low, back.high) == pytest.approx((-available.points, -available.high, -available.low))
