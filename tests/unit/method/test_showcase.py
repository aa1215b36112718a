"""Which images and classes are shown."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.method.select import argmax_per_class, select_explanations

Z = np.array([[1, 3, -1], [4, -2, -2], [2, 3, -3], [0, 1, -0.5]], dtype=np.float32)


def test_surest_by_hand():
    rows, logits = argmax_per_class([Z[:2], Z[2:]], 3)
    assert rows.tolist() == [1, 0, 3]  # of the equal 3s of class 1 the first
    assert logits.tolist() == Z[[1, 0, 3]].tolist()


def test_pairs_by_hand():
    # Highest logits 4, 3 and -0.5. Image 1 names nothing beside class 0; image 0 names class 0 second, image 3 class 1.
    pairs = [(1, 0), (0, 1), (0, 0), (3, 2), (3, 1)]
    assert select_explanations(*argmax_per_class([Z], 3), 40) == pairs
    assert select_explanations(*argmax_per_class([Z], 3), 2) == pairs[:2]


def test_no_pair_comes_twice():
    assert select_explanations(*argmax_per_class([np.array([[2, 1], [-5, -5]], dtype=np.float32)], 2), 9) == [
        (0, 0),
        (0, 1),
    ]


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 5), st.integers(1, 12), st.integers(1, 12))
def test_slabs_make_no_difference_and_the_rest_holds(seed, images, classes, slab, most):
    z = np.random.default_rng(seed).integers(-3, 4, (images, classes)).astype(np.float32)
    rows, logits = argmax_per_class((z[start : start + slab] for start in range(0, images, slab)), classes)
    assert rows.tolist() == z.argmax(axis=0).tolist()
    pairs = select_explanations(rows, logits, most)
    assert len(set(pairs)) == len(pairs) <= most
    assert all(row == rows[c] or z[row, c] >= 0 for row, c in pairs)
    assert most < 2 * classes or {c for _, c in pairs} == set(range(classes))
