import torch
from hypothesis import given
from hypothesis import strategies as st

from cutsew.numerics.prompts import average, coinciding, fill


def test_fill():
    texts = fill(["a photo of a {class}", "{class}!"], {"tvmonitor": "tv monitor"}, ["dog", "tvmonitor"])
    assert texts == [["a photo of a dog", "dog!"], ["a photo of a tv monitor", "tv monitor!"]]


def test_average_by_hand():
    """Texts (3, 0) and (0, 0.1): directions (1, 0) and (0, 1), mean direction (1, 1) / sqrt 2, whatever the lengths."""
    averaged = average(torch.tensor([[[3.0, 0.0], [0.0, 0.1]]]))
    torch.testing.assert_close(averaged, torch.full((1, 2), 0.5**0.5))


@given(classes=st.integers(1, 5), texts=st.integers(1, 4), seed=st.integers(0, 99), factor=st.floats(0.1, 10))
def test_average_is_a_direction(classes, texts, seed, factor):
    embeddings = torch.randn(classes, texts, 6, generator=torch.Generator().manual_seed(seed))
    averaged = average(embeddings)
    torch.testing.assert_close(averaged.norm(dim=1), torch.ones(classes))
    torch.testing.assert_close(average(embeddings * factor), averaged)
    torch.testing.assert_close(average(embeddings.flip(1)), averaged)


def test_coinciding():
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    assert coinciding(embeddings, 0.9999) == [(0, 2)]
    assert coinciding(embeddings, 0.5) == [(0, 2), (0, 3), (1, 3), (2, 3)]
