"""Cutting: the crops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cutsew.numerics.views import crop_boxes, cut, whole_box

SETTINGS = {"seed": 9, "area": (0.1, 0.2), "aspect": (3 / 4, 4 / 3), "flip": 0.5}


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
def test_boxes_lie_within_the_photo(width, height, digest):
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


def test_a_very_narrow_photo_gives_its_centre():
    box = crop_boxes("d", 3000, 10, [0], **SETTINGS)[0]
    assert box[:4].tolist() == [1493, 0, 1506, 10]


def test_cut_by_hand():
    photo = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    box = np.array([1, 1, 3, 3, 0], dtype=np.float32)
    view = cut(photo, box, 2)
    assert view.tolist() == np.asarray(photo)[1:3, 1:3].transpose(2, 0, 1).tolist()
    mirrored = cut(photo, np.array([1, 1, 3, 3, 1], dtype=np.float32), 2)
    assert mirrored.tolist() == view[:, :, ::-1].tolist()


@pytest.mark.parametrize("size", [1, 7, 32])
def test_whole_box_is_a_squash(size):
    photo = Image.effect_noise((20, 10), 60).convert("RGB")
    view = cut(photo, whole_box(*photo.size), size)
    plain = np.asarray(photo.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert view.shape == (3, size, size) and np.array_equal(view, plain)
