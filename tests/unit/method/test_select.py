"""Salient images (Eq. 10)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.method.select import automatic_k, top_k


def test_by_hand():
    slabs = [np.array([[0.1, 3.0], [0.9, 1.0]]), np.array([[0.5, 2.0]])]
    chosen, z = top_k(slabs, 2)
    assert chosen.tolist() == [[1, 2], [0, 2]]
    assert z.tolist() == [[0.9, 0.5], [3.0, 2.0]]


def test_more_than_there_are():
    with pytest.raises(ValueError, match="k = 3 is more than the 2 images"):
        top_k([np.zeros((1, 1)), np.zeros((1, 1))], 3)
    with pytest.raises(ValueError, match="k = 1 is more than the 0 images"):
        top_k([], 1)


@given(
    arrays(np.float32, (9, 3), elements=st.integers(-3, 3)), st.integers(1, 9), st.lists(st.integers(0, 9), max_size=4)
)
def test_however_it_is_cut_the_most_salient_are_chosen_and_of_equal_ones_the_first(zero_shot, k, cuts):
    chosen, z = top_k(np.split(zero_shot, sorted(cuts)), k)
    for column, own_values, values in zip(zero_shot.T, chosen, z, strict=True):
        expected = sorted(range(9), key=lambda i: (-column[i], i))[:k]
        assert own_values.tolist() == expected
        assert values.tolist() == column[expected].tolist()


@pytest.mark.parametrize(
    ("images", "classes", "k"),
    [
        (300, 20, 20),  # ceil(1.3 * 300 / 20 = 19.5)
        (1000, 20, 65),
        (5717, 20, 201),  # ceil(0.7 * 5717 / 20 = 200.1)
        (82_081, 80, 719),
        (5, 80, 1),
        (3, 1, 3),  # never more than there are
        (2391, 20, 120),  # half-way in log N between 1,000 and 5,717: ceil(1.0 * 2391 / 20)
    ],
)
def test_automatic_k_by_hand(images, classes, k):
    assert automatic_k(images, classes) == k


@given(st.integers(1, 10**7), st.integers(1, 20_000))
def test_automatic_k_is_between_one_and_all(images, classes):
    assert 1 <= automatic_k(images, classes) <= images
