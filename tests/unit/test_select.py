"""Salient photos (Eq. 10)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.numerics.select import top_k


def test_by_hand():
    zero_shot = np.array([[0.1, 3.0], [0.9, 1.0], [0.5, 2.0]])
    assert top_k(zero_shot, 2).tolist() == [[1, 2], [0, 2]]


def test_of_equal_photos_the_first():
    assert top_k(np.zeros((4, 1)), 2).tolist() == [[0, 1]]


def test_more_than_there_are():
    with pytest.raises(ValueError, match="k = 3 is more than the 2 images"):
        top_k(np.zeros((2, 1)), 3)


@given(arrays(np.float32, (7, 3), elements=st.floats(-13, 13, width=32)), st.integers(1, 7))
def test_no_photo_left_out_is_more_salient(zero_shot, k):
    for column, chosen in zip(zero_shot.T, top_k(zero_shot, k), strict=True):
        assert len(set(chosen)) == k
        left_out = np.delete(column, chosen)
        assert not len(left_out) or column[chosen].min() >= left_out.max()
