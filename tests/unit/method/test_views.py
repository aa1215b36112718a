"""Cutting: the crops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cutsew.method.crops import crop_boxes, cut, whole_box
from cutsew.method.random import keyed_rng

SETTINGS = {"seed": 9, "area": (0.1, 0.2), "aspect": (3 / 4, 4 / 3), "flip": 0.5}
SPREAD = {**SETTINGS, "layout": "spread"}


def test_golden_boxes():
    boxes = crop_boxes("d1", 500, 375, range(3), **SETTINGS)
    assert boxes.tolist() == [
        [323.0, 23.0, 479.0, 174.0, 0.0],
        [89.0, 12.0, 264.0, 223.0, 1.0],
        [37.0, 63.0, 231.0, 240.0, 1.0],
    ]


def test_a_crop_depends_on_content_and_pass_alone():
    together = crop_boxes("d1", 500, 375, range(20), **SETTINGS)
    alone = np.concatenate([crop_boxes("d1", 500, 375, [k], **SETTINGS) for k in range(20)])
    assert np.array_equal(together, alone)
    assert not np.array_equal(together, crop_boxes("d2", 500, 375, range(20), **SETTINGS))
    assert not np.array_equal(together, crop_boxes("d1", 500, 375, range(20), **{**SETTINGS, "seed": 10}))


@given(st.integers(1, 3000), st.integers(1, 3000), st.text(max_size=8))
def test_boxes_lie_within_the_image(width, height, digest):
    left, top, right, bottom, flip = crop_boxes(digest, width, height, range(4), **SETTINGS).T
    assert (left >= 0).all() and (top >= 0).all() and (right <= width).all() and (bottom <= height).all()
    assert (left < right).all() and (top < bottom).all()
    assert set(flip) <= {0.0, 1.0}


def test_share_and_shape_are_within_their_ranges():
    left, top, right, bottom, flip = crop_boxes("d", 1000, 800, range(500), **SETTINGS).T
    share = (right - left) * (bottom - top) / 800_000
    shape = (right - left) / (bottom - top)
    assert share.min() > 0.099 and share.max() < 0.201
    assert shape.min() > 0.745 and shape.max() < 1.34
    assert 0.4 < flip.mean() < 0.6
    assert 0.13 < share.mean() < 0.17


def test_a_very_narrow_image_gives_its_centre():
    box = crop_boxes("d", 3000, 10, [0], **SETTINGS)[0]
    assert box[:4].tolist() == [1493, 0, 1506, 10]


def test_spread_by_hand():
    """Pass 0 of shifts s: u = frac(s0 + 1 / g), v = frac(s1 + 1 / g^2), a half-wide box moved inside the image."""
    shift = keyed_rng(9, "d", "spread").random(4)
    u, v = (shift[0] + 0.7548776662466927) % 1, (shift[1] + 0.5698402909980532) % 1
    fixed = {**SPREAD, "area": (0.25, 0.25), "aspect": (1.0, 1.0), "flip": 0.0}
    left, top, right, bottom, flip = crop_boxes("d", 100, 100, [0], **fixed)[0]
    assert (right - left, bottom - top, flip) == (50, 50, 0)
    assert left == min(max(0, round(u * 100 - 25)), 50) and top == min(max(0, round(v * 100 - 25)), 50)


def test_golden_spread_boxes():
    boxes = crop_boxes("d1", 500, 375, range(3), **SPREAD)
    assert boxes.tolist() == [
        [59.0, 201.0, 223.0, 375.0, 1.0],
        [0.0, 143.0, 160.0, 276.0, 0.0],
        [312.0, 0.0, 480.0, 196.0, 0.0],
    ]


@given(st.integers(1, 3000), st.integers(1, 3000), st.text(max_size=8), st.integers(1, 40))
def test_spread_is_nested_and_lies_within_the_image(width, height, digest, more):
    boxes = crop_boxes(digest, width, height, range(more), **SPREAD)
    left, top, right, bottom, _ = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (right <= width).all() and (bottom <= height).all()
    assert (left < right).all() and (top < bottom).all()
    assert np.array_equal(boxes[more - 1 :], crop_boxes(digest, width, height, [more - 1], **SPREAD))


def test_spread_sees_borders_as_often_as_the_middle():
    def coverage(settings):
        seen = np.zeros((60, 80))
        for image in range(400):
            for left, top, right, bottom, _ in crop_boxes(str(image), 80, 60, range(10), **settings).astype(int):
                seen[top:bottom, left:right] += 1
        return seen / 400

    random, spread = coverage(SETTINGS), coverage(SPREAD)
    assert random[0, 0] < 0.02 and spread[0, 0] > 0.3
    assert spread[30, 0] > 0.5 * spread[30, 40] and random[30, 0] < 0.1 * random[30, 40]


def test_spread_covers_more_of_a_image_than_random():
    def covered(settings):
        shares = []
        for image in range(100):
            seen = np.zeros((60, 80), dtype=bool)
            for left, top, right, bottom, _ in crop_boxes(str(image), 80, 60, range(10), **settings).astype(int):
                seen[top:bottom, left:right] = True
            shares.append(seen.mean())
        return np.mean(shares)

    assert covered(SPREAD) > covered(SETTINGS) + 0.05


def test_tiles_by_hand():
    tiles = {**SETTINGS, "layout": "tiles", "tiles": [(1, 0.5), (3, 0.4)]}
    boxes = crop_boxes("any", 100, 50, range(10), **tiles)
    assert boxes[0].tolist() == [25, 13, 75, 38, 0]  # halves are rounded up
    assert boxes[1:, [0, 2]].tolist() == [[0, 40], [30, 70], [60, 100]] * 3
    assert boxes[1:, [1, 3]].tolist() == [[0, 20]] * 3 + [[15, 35]] * 3 + [[30, 50]] * 3
    assert not boxes[:, 4].any()
    assert np.array_equal(boxes[[7, 2]], crop_boxes("other", 100, 50, [7, 2], **tiles))


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 6))
def test_disjoint_tiles_part_a_image_without_a_gap(width, height, n):
    tiles = {**SETTINGS, "layout": "tiles", "tiles": [(n, 1 / n)]}
    left, top, right, bottom, _ = crop_boxes("d", width, height, range(n * n), **tiles).T
    assert (left < right).all() and (top < bottom).all() and right.max() == width and bottom.max() == height
    if width >= n and height >= n:
        assert ((right - left) * (bottom - top)).sum() == width * height


def test_cut_by_hand():
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    box = np.array([1, 1, 3, 3, 0], dtype=np.float32)
    view = cut(image, box, 2)
    assert view.tolist() == np.asarray(image)[1:3, 1:3].transpose(2, 0, 1).tolist()
    mirrored = cut(image, np.array([1, 1, 3, 3, 1], dtype=np.float32), 2)
    assert mirrored.tolist() == view[:, :, ::-1].tolist()


@pytest.mark.parametrize("size", [1, 7, 32])
def test_whole_box_is_a_squash(size):
    image = Image.effect_noise((20, 10), 60).convert("RGB")
    view = cut(image, whole_box(*image.size), size)
    plain = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert view.shape == (3, size, size) and np.array_equal(view, plain)
