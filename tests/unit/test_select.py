"""Salient photos (Eq. 10)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.numerics.select import top_k


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
    for column, mine, values in zip(zero_shot.T, chosen, z, strict=True):
        wanted = sorted(range(9), key=lambda i: (-column[i], i))[:k]
        assert mine.tolist() == wanted
        assert values.tolist() == column[wanted].tolist()
