"""Sewing (Eq. 11-12, Algorithm 1)."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cutsew.method.random import keyed_rng
from cutsew.method.sew import compose, overlay_count, overlay_size, plan

DEFAULTS = {"p": 0.6, "q": 0.6, "ratio": "area", "max_overlays": 2, "at_least_one": False}


def draw(row=0, digest="d", pool=(0, 1, 2, 3), sizes=((200, 100),) * 4, seed=9, epoch=0, **changes):
    chosen = {**DEFAULTS, **changes}
    return plan(row, digest, np.array(pool, np.int64), np.array(sizes, np.int64), seed=seed, epoch=epoch, **chosen)


@pytest.mark.parametrize(
    ("p", "limit", "at_least_one", "shares"),
    [
        (0.6, 2, False, [0.4, 0.24, 0.36]),
        (0.6, 3, False, [0.4, 0.24, 0.144, 0.216]),
        (0.6, 3, True, [0, 0.6, 0.24, 0.16]),
        (0.6, 1, True, [0, 1]),
        (0.0, 2, False, [1, 0, 0]),
        (0.0, 2, True, [0, 0, 1]),
    ],
)
def test_counts_follow_the_two_rules(p, limit, at_least_one, shares):
    draws = 4000
    rng = keyed_rng("counts")
    counts = Counter(overlay_count(rng, p, limit, at_least_one) for _ in range(draws))
    result = [counts[k] / draws for k in range(limit + 1)]
    assert sum(result) == 1
    assert result == pytest.approx(shares, abs=0.03)


@pytest.mark.parametrize(
    ("overlay", "background", "q", "count", "ratio", "size"),
    [
        ((100, 50), (200, 100), 0.5, 2, "area", (100, 50)),  # 0.25 x 20,000 px = 5,000 px = 100 x 50
        ((50, 50), (200, 200), 0.25, 1, "area", (100, 100)),
        ((50, 50), (100, 200), 0.6, 1, "area", (100, 100)),  # 12,000 px would be 110 x 110: too wide
        ((400, 200), (200, 100), 0.6, 1, "side", (120, 60)),
        ((50, 50), (100, 200), 0.6, 1, "side", (60, 60)),
        ((400, 200), (200, 100), 0.6, 2, "side", (85, 42)),  # 0.6 / sqrt(2) = 0.424
        ((1000, 1), (100, 100), 0.5, 1, "side", (50, 1)),  # never less than a pixel
    ],
)
def test_overlay_sizes_by_hand(overlay, background, q, count, ratio, size):
    assert overlay_size(overlay, background, q, count, ratio) == size


sides = st.integers(1, 500)
size_pairs = st.tuples(sides, sides)


@settings(max_examples=200)
@given(
    st.lists(size_pairs, min_size=1, max_size=8),
    st.data(),
    st.sampled_from(["area", "side"]),
    st.floats(0.01, 1),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_plans_stay_inside_and_never_paste_a_image_on_itself(sizes, data, ratio, q, limit, at_least_one, seed):
    row = data.draw(st.integers(0, len(sizes) - 1))
    pool = sorted(data.draw(st.sets(st.integers(0, len(sizes) - 1))))
    drawn = draw(row, "x", pool, sizes, seed, q=q, ratio=ratio, max_overlays=limit, at_least_one=at_least_one)
    width, height = sizes[row]
    assert drawn.boxes.shape == (len(drawn.overlays), 4)
    assert len(drawn.overlays) <= limit
    assert len(set(drawn.overlays.tolist())) == len(drawn.overlays)
    assert set(drawn.overlays.tolist()) <= set(pool) - {row}
    if at_least_one and set(pool) - {row}:
        assert len(drawn.overlays) >= 1
    left, top, right, bottom = drawn.boxes.T
    assert ((left >= 0) & (top >= 0) & (right <= width) & (bottom <= height) & (left < right) & (top < bottom)).all()


@settings(max_examples=100)
@given(st.integers(1, 4), st.floats(0.05, 0.5), st.floats(0.7, 1.4), st.integers(0, 10**6))
def test_all_overlays_together_cover_q_and_keep_their_aspect(limit, q, aspect, seed):
    sizes = [(1000, 1000)] + [(round(300 * aspect), 300)] * 4
    drawn = draw(0, "x", range(5), sizes, seed, q=q, max_overlays=limit, at_least_one=True)
    wide, high = drawn.boxes[:, 2] - drawn.boxes[:, 0], drawn.boxes[:, 3] - drawn.boxes[:, 1]
    assert (wide * high).sum() / 1e6 == pytest.approx(q, rel=0.02)
    assert wide / high == pytest.approx(round(300 * aspect) / 300, rel=0.02)


def test_every_image_of_the_pool_but_the_background_is_drawn_equally_often_and_everywhere():
    result, lefts = Counter(), []
    for i in range(3000):
        drawn = draw(2, str(i), p=0.9, max_overlays=1, at_least_one=True, q=0.25)
        result.update(drawn.overlays.tolist())
        lefts.extend(drawn.boxes[:, 0].tolist())
    assert set(result) == {0, 1, 3}
    assert [result[i] / 3000 for i in (0, 1, 3)] == pytest.approx([1 / 3] * 3, abs=0.04)
    assert (min(lefts), max(lefts)) == (0, 100)
    assert np.mean(lefts) == pytest.approx(50, abs=3)


def test_a_plan_depends_on_seed_epoch_and_digest_alone():
    def same(a, b):
        return np.array_equal(a.overlays, b.overlays) and np.array_equal(a.boxes, b.boxes)

    pool, sizes = range(50), ((200, 100),) * 50
    base = draw(pool=pool, sizes=sizes, at_least_one=True)
    assert same(base, draw(pool=pool, sizes=sizes, at_least_one=True))
    for change in ({"seed": 10}, {"epoch": 1}, {"digest": "e"}):
        assert not same(base, draw(pool=pool, sizes=sizes, at_least_one=True, **change))


def test_compose_pastes_opaque_resized_overlays_in_order():
    background = Image.new("RGB", (8, 6), (10, 20, 30))
    overlays = [Image.new("RGB", (3, 3), (200, 0, 0)), Image.new("RGB", (40, 40), (0, 200, 0))]
    sewn = np.asarray(compose(background, overlays, np.array([[0, 0, 4, 4], [2, 2, 6, 5]])))
    expected = np.empty((6, 8, 3), np.uint8)
    expected[:] = (10, 20, 30)
    expected[0:4, 0:4] = (200, 0, 0)
    expected[2:5, 2:6] = (0, 200, 0)
    assert np.array_equal(sewn, expected)
    assert background.getpixel((0, 0)) == (10, 20, 30)
