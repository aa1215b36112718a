"""Weak and strong views."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cutsew.method.student_views import pixels, strong_view, weak_view


def image(width=30, height=20, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_weak_view_is_squashed_and_not_flipped():
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))
    view = pixels(weak_view(image, 8))
    assert view.shape == (3, 8, 8)
    assert view.dtype == np.uint8
    assert view[:, 4, 0].tolist() == [255, 0, 0]
    assert view[:, 4, 7].tolist() == [0, 0, 255]


@settings(max_examples=25)
@given(st.integers(0, 2**62), st.integers(0, 2**32))
def test_a_strong_view_depends_on_its_seed_alone_and_leaves_torch_as_it_was(seed, other):
    weak = image(16, 16)
    torch.manual_seed(other)
    before = torch.get_rng_state()
    first = pixels(strong_view(weak, seed))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(other + 1)
    assert np.array_equal(first, pixels(strong_view(weak, seed)))
    assert first.shape == (3, 16, 16)


def test_half_of_the_strong_views_are_flipped_and_most_are_changed():
    weak = image(16, 16)
    mirrored = ImageOps.mirror(weak)
    views = [pixels(strong_view(weak, seed)) for seed in range(200)]
    as_is = sum(np.array_equal(view, pixels(weak)) for view in views)
    flipped = sum(np.array_equal(view, pixels(mirrored)) for view in views)
    assert as_is + flipped < 40  # RandAugment's identity, twice, or operations that change nothing here
    nearer = sum(
        np.abs(view.astype(int) - pixels(mirrored)).sum() < np.abs(view.astype(int) - pixels(weak)).sum()
        for view in views
    )
    assert 70 < nearer < 130
