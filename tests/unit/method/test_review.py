"""Which images to look at next: worked examples and properties."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cutsew.method.review import chain, decided, disagreement, nearest, same_picture, uncertainty, unlike


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


@settings(max_examples=25)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 9))
def test_as_many_as_asked_for_each_once_in_the_order_of_scores(n, count, different, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(different, 3))[rng.integers(different, size=n)]  # images that are equal, too
    scores = rng.integers(0, 3, n).astype(float)
    chosen = unlike(features, scores, count)
    assert len(chosen) == len(set(chosen.tolist())) == min(n, count)
    assert (np.diff(scores[chosen]) <= 0).all()
    assert np.array_equal(chosen, unlike(features, scores, count))


def test_the_nearest_row_is_found_block_by_block():
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(23, 6)).astype(np.float32), rng.normal(size=(9, 6)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ unit.T
    for size in (1, 5, 23):
        found, value = nearest(queries, (rows[start : start + size] for start in range(0, 23, size)))
        assert found.tolist() == cosine.argmax(axis=1).tolist()
        assert value == pytest.approx(cosine.max(axis=1), abs=1e-6)
    twice = np.concatenate([rows, rows])
    assert nearest(queries, [twice[:30], twice[30:]])[0].tolist() == cosine.argmax(axis=1).tolist()


def test_copies_are_the_same_picture_and_others_are_not():
    rng = np.random.default_rng(1)
    noise = [Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)).resize((300, 400)) for _ in range(2)]
    copy = io.BytesIO()
    noise[0].resize((120, 160)).save(copy, "JPEG", quality=40)
    assert same_picture(noise[0], Image.open(copy)) and same_picture(noise[0], noise[0])
    assert not same_picture(noise[0], noise[1])
    plain = Image.new("RGB", (50, 50), "white")
    assert not same_picture(plain, plain)  # nothing is on it that could be the same


def test_similar_rows_come_together():
    angles = np.deg2rad([0, 90, 5, 180, 95, 10])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert chain(features).tolist() == [0, 2, 5, 1, 4, 3]
    same = np.ones((4, 3), np.float32)
    assert chain(same).tolist() == [0, 1, 2, 3] and chain(same[:1]).tolist() == [0]
    rows = np.random.default_rng(3).normal(size=(40, 8)).astype(np.float32)
    assert sorted(chain(rows).tolist()) == list(range(40))
