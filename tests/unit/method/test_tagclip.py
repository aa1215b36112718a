"""TagCLIP's formulas, on numbers worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.method.fuse import WHOLE, fuse_tagclip
from cutsew.method.tagclip import (
    candidates,
    class_masks,
    coarse_scores,
    confident_attention,
    grid_of,
    refined_scores,
    region,
)

T = torch.tensor
quick = settings(max_examples=30)  # the first call of torch takes long


@pytest.mark.parametrize(
    ("width", "height", "most", "grid"),
    [
        (500, 375, 1600, (24, 32)),  # 23.4 and 31.25 patches of 16 pixels, rounded up
        (640, 640, 1600, (40, 40)),
        (1280, 640, 200, (10, 20)),  # 40 x 80 patches are 16 times too many: a quarter of each side
        (4000, 10, 100, (1, 100)),  # 250 patches in one row
        (10, 4000, 100, (100, 1)),
        (1, 1, 1, (1, 1)),
    ],
)
def test_a_image_in_patches(width, height, most, grid):
    assert grid_of(width, height, 16, most) == grid


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(8, 32), st.integers(1, 2000))
def test_a_image_never_has_more_patches_than_allowed(width, height, patch, most):
    rows, columns = grid_of(width, height, patch, most)
    assert rows >= 1 and columns >= 1 and rows * columns <= most
    assert rows <= -(-height // patch) and columns <= -(-width // patch)


def test_coarse_scores_by_hand():
    texts = T([[1.0, 0.0], [0.0, 1.0]])
    result = coarse_scores(T([[1.0, 0.0], [0.6, 0.8]]), texts, scale=np.log(2) / 0.2)
    # exp(scale * 0.2) = 2: cosines 1 and 0 are 5 such steps apart, 0.6 and 0.8 one
    assert result.numpy() == pytest.approx(np.array([[32 / 33, 1 / 33], [1 / 3, 2 / 3]]), abs=1e-6)


# Means 0.25 and 0.225: above them are (0, 1), (1, 0), (2, 2) and (0, 0), (1, 0), (2, 0).
ATTENTION = T(
    [
        [[0.1, 0.9, 0.0], [0.6, 0.0, 0.05], [0.2, 0.1, 0.3]],
        [[0.4, 0.1, 0.1], [0.5, 0.1, 0.025], [0.6, 0.1, 0.1]],
    ]
)


def test_confident_attention_by_hand():
    # the last block's vote lies on the diagonal
    count = T([[2, 1, 0], [2, 1, 0], [1, 0, 2]])
    for votes in (1, 2, 3):
        assert torch.equal(confident_attention(ATTENTION, votes), count >= votes)


def test_class_masks_by_hand():
    first = T([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 0, 8]])  # a diagonal pair is one region, whose box is 2 x 2
    second = T([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])  # nothing is below the mean
    third = T([[9, 9, 9, 9], [9, 0, 0, 9], [9, 9, 9, 9]])  # a ring's box is full
    scores = torch.stack([first, second, third]).reshape(3, 12).T.float()
    masks = class_masks(scores, (3, 4)).T.reshape(3, 3, 4).int()
    assert masks[0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]
    assert (masks[1:] == 1).all()


def test_refined_scores_by_hand():
    coarse = T([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
    # two votes leave (0, 0), (1, 0) and (2, 2); their means over both blocks are 0.25, 0.55 and 0.2
    # P^ of the first class: 0.25 * 0.8 = 0.2, 0.55 * 0.8 = 0.44, 0.2 * 0.1 = 0.02; mean 0.22: patch 1 alone
    # P^ of the second: 0.05, 0.11, 0.18; mean 0.1133: patch 2 alone
    # the first speaks from patch 1 alone, to which nothing attends; the second from patch 2
    expected = [[0, 0], [0, 0], [0, 0.18]]
    assert refined_scores(coarse, ATTENTION, (1, 3), blocks=2, votes=2).numpy() == pytest.approx(
        np.array(expected), abs=1e-6
    )
    # of the last block alone, one vote: rows (0.4 0.1 0), (0.5 0.1 0), (0.6 0 0.1)
    # P^: 0.37, 0.45, 0.49 with mean 0.4367: patches 1, 2; and 0.13, 0.15, 0.21 with mean 0.1633: patch 2
    expected = [[0.1 * 0.5, 0], [0.1 * 0.5, 0], [0.1 * 0.1, 0.1 * 0.9]]
    assert refined_scores(coarse, ATTENTION, (1, 3), blocks=1, votes=1).numpy() == pytest.approx(
        np.array(expected), abs=1e-6
    )


def test_candidates_by_hand():
    refined = T([[0.1, 0.5, 0.9], [0.3, 0.2, 0.1]])  # the third is no class, and sets the scale: 0.1 to 0.9
    local, chosen = candidates(refined, classes=2, share=0.4)  # from 0.42 on
    assert torch.equal(local, T([0.3, 0.5])) and chosen.tolist() == [False, True]
    assert candidates(refined, 2, 0.0)[1].tolist() == [True, True]
    assert not candidates(refined, 2, 1.0)[1].any()


def test_region_by_hand():
    scores = T([[0.0, 0.1, 0.2, 0.0], [0.0, 0.9, 0.1, 0.0], [0.0, 0.2, 0.7, 0.0]])  # from 0.45 on: two patches
    box, own_values = region(scores.flatten(), (3, 4))
    assert box == (1, 1, 3, 3) and own_values.tolist() == [[True, False], [False, True]]
    box, own_values = region(torch.full((12,), 0.3), (3, 4))  # no patch stands out: the whole image
    assert box == (0, 0, 3, 4) and own_values.all()


def test_the_second_answer_by_hand():
    local, again = np.float32([[0.6, 0.9, 0.0]]), np.float32([[0.2, np.nan, 1.0]])
    z, winner = fuse_tagclip(local, again, 0.25, 1e-6)
    assert z == pytest.approx(np.log([[0.5 / 0.5, 0.9 / 0.1, 0.25 / 0.75]]), abs=1e-5)
    assert (winner == WHOLE).all() and (z.dtype, winner.dtype) == (np.float32, np.int16)


def cases():
    """Draw an image of a few patches, blocks and classes."""
    return st.tuples(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.integers(2, 5), st.integers(1, 4))


def drawn(case):
    seed, rows, columns, texts, depth = case
    torch.manual_seed(seed)
    coarse = torch.randn(rows * columns, texts).softmax(dim=-1)
    attention = torch.randn(depth, rows * columns, rows * columns + 1).softmax(dim=-1)[:, :, 1:]
    return coarse, attention, (rows, columns)


@quick
@given(cases())
def test_no_block_no_refinement(case):
    coarse, attention, grid = drawn(case)
    assert torch.equal(refined_scores(coarse, attention, grid, blocks=0, votes=1), coarse)


@quick
@given(cases(), st.integers(1, 3))
def test_attention_to_itself_alone_keeps_what_the_mask_keeps(case, votes):
    coarse, attention, grid = drawn(case)
    alone = torch.eye(len(coarse)).expand_as(attention)
    if len(coarse) > 1 and votes <= len(alone) + 1:
        expected = coarse * class_masks(coarse, grid)
        assert torch.equal(refined_scores(coarse, alone, grid, blocks=1, votes=votes), expected)


@quick
@given(cases(), st.integers(0, 3), st.integers(1, 5), st.floats(0, 1))
def test_the_order_of_classes_does_not_matter(case, blocks, votes, share):
    coarse, attention, grid = drawn(case)
    order = torch.randperm(coarse.shape[1])
    refined = refined_scores(coarse, attention, grid, blocks, votes)
    other = refined_scores(coarse[:, order], attention, grid, blocks, votes)
    torch.testing.assert_close(other, refined[:, order], rtol=1e-6, atol=1e-7)
    local, chosen = candidates(refined, coarse.shape[1], share)
    theirs = candidates(refined[:, order], coarse.shape[1], share)
    assert torch.equal(theirs[0], local[order]) and torch.equal(theirs[1], chosen[order])


@quick
@given(cases(), st.integers(0, 3), st.integers(1, 5))
def test_scores_stay_scores_and_a_region_holds_its_peak(case, blocks, votes):
    coarse, attention, grid = drawn(case)
    refined = refined_scores(coarse, attention, grid, blocks, votes)
    assert (refined >= 0).all() and (refined <= coarse.amax(dim=0) + 1e-6).all()
    for scores in refined.T:
        (top, left, bottom, right), own_values = region(scores, grid)
        peak = divmod(int(scores.argmax()), grid[1])
        assert top <= peak[0] < bottom and left <= peak[1] < right
        assert own_values.shape == (bottom - top, right - left) and own_values.any(dim=0)[[0, -1]].all()
        assert own_values[peak[0] - top, peak[1] - left]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0, 1))
def test_the_second_answer_lies_between_both(pairs, weight):
    local, again = np.float64(pairs).T[:, None]
    p = 1 / (1 + np.exp(-fuse_tagclip(local, again, weight, 1e-6)[0].astype(np.float64)))
    assert (p >= np.minimum(local, again) - 2e-6).all() and (p <= np.maximum(local, again) + 2e-6).all()
    unasked = fuse_tagclip(local, np.full_like(local, np.nan), weight, 1e-6)[0]
    assert np.array_equal(unasked, fuse_tagclip(local, again, 0.0, 1e-6)[0])


def test_the_best_wording_counts_patch_by_patch():
    patches, texts = torch.eye(3), torch.eye(3)
    probabilities = coarse_scores(patches, texts, math.log(3), sizes=(2, 1))
    torch.testing.assert_close(probabilities, torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.25, 0.75]]))
