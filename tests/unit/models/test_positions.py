import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutsew.models.clip import resize_position_embedding

# Keys' cubic (a = -1/2) at distances 1/4 and 5/4, and 1/4 and 3/4, scaled to sum 1: hand-worked.
NEAR, FAR = 37 / 34, -3 / 34
INNER, OUTER = 111 / 140, 29 / 140


def test_doubled_grid_by_hand():
    """Columns 0 and 1 of a 2 x 2 grid become -3/34, 29/140, 111/140, 37/34; the token's row stays."""
    table = torch.tensor([[9.0, -9.0], [0, 0], [1, 0], [0, 1], [1, 1]])
    resized = resize_position_embedding(table, (4, 4))
    steps = torch.tensor([FAR, OUTER, INNER, NEAR])
    assert resized.shape == (17, 2)
    assert torch.equal(resized[0], table[0])
    torch.testing.assert_close(resized[1:, 0].reshape(4, 4), steps.expand(4, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(resized[1:, 1].reshape(4, 4), steps[:, None].expand(4, 4), atol=1e-6, rtol=0)


@given(side=st.integers(1, 6), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_token_and_constants_are_kept(side, height, width, seed):
    table = torch.randn(1 + side * side, 3, generator=torch.Generator().manual_seed(seed))
    table[1:, 2] = 0.5
    resized = resize_position_embedding(table, (height, width))
    assert resized.shape == (1 + height * width, 3)
    assert torch.equal(resized[0], table[0])
    torch.testing.assert_close(resized[1:, 2], torch.full((height * width,), 0.5))


def test_fitting_table_is_not_touched():
    table = torch.randn(10, 4)
    assert resize_position_embedding(table, (3, 3)) is table


def test_half_precision_is_kept():
    assert resize_position_embedding(torch.randn(5, 4).half(), (3, 3)).dtype == torch.float16


def test_table_without_a_square_grid():
    with pytest.raises(ValueError, match="6 position embeddings"):
        resize_position_embedding(torch.zeros(6, 2), (3, 3))
