import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutsew.config.networks import PromptsConfig
from cutsew.method import prompts
from cutsew.method.prompts import average, average_of, best_wording, coinciding, fill


def test_fill():
    texts = fill(["a photo of a {class}", "{class}!"], [["dog"], ["crane bird", "heron"]])
    assert texts == [
        ["a photo of a dog", "dog!"],
        ["a photo of a crane bird", "crane bird!", "a photo of a heron", "heron!"],
    ]


def test_wordings_and_background():
    """A class without a wording is called what it is called; words that name a class are no background."""
    prompts = PromptsConfig(
        names={"crane": ["crane bird", "heron"], "tvmonitor": "tv monitor", "cow": ["a cow"]},
        background=["sky", "Heron", " TV  monitor", "crane", "grass"],
    )
    assert prompts.wordings_of(["dog", "crane", "tvmonitor"]) == [["dog"], ["crane bird", "heron"], ["tv monitor"]]
    assert prompts.names["cow"] == "a cow"
    assert prompts.background_beside(["dog", "crane", "tvmonitor"]) == ["sky", "grass"]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_groups_of_texts_are_averaged_each_on_its_own(sizes, seed):
    embeddings = torch.randn(sum(sizes), 6, generator=torch.Generator().manual_seed(seed))
    parts = torch.split(embeddings, sizes)
    assert torch.equal(average_of(embeddings, sizes), torch.cat([average(part[None]) for part in parts]))
    assert torch.equal(best_wording(embeddings.T, sizes), torch.stack([part.amax(dim=0) for part in parts], dim=-1))
    assert torch.equal(best_wording(embeddings.T, None), embeddings.T)


@given(st.integers(1, 5), st.integers(1, 80), st.integers(0, 99))
def test_groups_of_one_size_are_averaged_as_ever(classes, texts, seed):
    embeddings = torch.randn(classes, texts, 16, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(average_of(embeddings.flatten(0, 1), [texts] * classes), average(embeddings))


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


@pytest.mark.parametrize("rows", [1, 2, 3, 1024])
def test_coinciding(rows, monkeypatch):
    monkeypatch.setattr(prompts, "ROWS", rows)
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    assert coinciding(embeddings, 0.9999) == [(0, 2)]
    assert coinciding(embeddings, 0.5) == [(0, 2), (0, 3), (1, 3), (2, 3)]
