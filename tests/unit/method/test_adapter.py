"""The adapter (Eq. 14-16)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.method.adapter import Adapter, Bottleneck, GridPosition

SMALL = {"reduction": 4, "width": 8, "layers": 1, "heads": 2, "feedforward": 8}


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def test_parameters_at_the_papers_size():
    bottleneck = 2048 * 128 + 128 + 128 * 2048  # no biases before BatchNorm
    project = 2048 * 256 + 2 * 256
    attention = 4 * (256 * 256 + 256)
    layer = 2 * attention + 2 * (256 * 256 + 256) + 3 * 2 * 256
    rest = 2 * 50 * 128 + 20 * 256 + 2 * 256 + 20 * 256 + 20
    assert count(Adapter(2048, 20)) == bottleneck + project + 2 * layer + rest == 2_391_700


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(2, 6))
def test_any_grid_up_to_the_largest_gives_a_logit_per_class(batch, height, width, classes):
    adapter = Adapter(16, classes, **SMALL, max_grid=5).eval()
    logits = adapter(torch.randn(batch, 16, height, width))
    assert logits.shape == (batch, classes)
    assert logits.dtype == torch.float32


def test_a_larger_grid_is_refused():
    with pytest.raises(ValueError, match="grid 6 x 2 is larger than this adapter's 5 x 5"):
        Adapter(16, 3, **SMALL, max_grid=5)(torch.zeros(1, 16, 6, 2))


def test_the_bottleneck_by_hand():
    bottleneck = Bottleneck(2, 2)  # two channels, one in between
    with torch.no_grad():
        bottleneck.down.weight.copy_(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
        bottleneck.down.bias.fill_(1.0)
        bottleneck.up.weight.copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1, 1))
        result = bottleneck(torch.tensor([[4.0, 2.0], [0.0, 5.0]]).view(2, 2, 1, 1))
    # relu(4 - 2 + 1) = 3: up gives 6, 9. relu(0 - 5 + 1) = 0: up gives 0, 0.
    assert result.view(2, 2).tolist() == [[5.0, 5.5], [0.0, 2.5]]


def test_positions_join_column_and_row():
    position = GridPosition(5, 4)
    result = position(2, 3)
    assert result.shape == (1, 6, 5)
    cell = result[0, 1 * 3 + 2]  # row 1, column 2
    assert torch.equal(cell[:2], position.column[2])
    assert torch.equal(cell[2:], position.row[1])


@settings(max_examples=20)
@given(st.integers(1, 7), st.integers(1, 7))
def test_groups_of_queries_are_decoded_apart(classes, query_group):
    torch.manual_seed(classes)
    whole = Adapter(16, classes, **SMALL, query_group=query_group, max_grid=5).eval()
    features = torch.randn(2, 16, 3, 2)
    rows = torch.arange(classes).tensor_split(whole.num_groups)
    assert max(map(len, rows)) <= query_group
    alone = []
    for group in rows:  # an adapter of the classes of one group
        part = Adapter(16, len(group), **SMALL, max_grid=5).eval()
        kept = {"queries", "weight", "bias"}
        part.load_state_dict({name: w[group] if name in kept else w for name, w in whole.state_dict().items()})
        alone.append(part(features))
    assert torch.allclose(whole(features), torch.cat(alone, dim=1), atol=1e-6)


def test_gradients_of_groups_are_those_of_what_is_held(monkeypatch):
    adapter = Adapter(16, 6, **SMALL, query_group=2, dropout=0.5, max_grid=5).train()
    features = torch.randn(3, 16, 3, 2)

    def gradients():
        adapter.zero_grad()
        torch.manual_seed(1)  # of dropout
        adapter(features).square().sum().backward()
        return [weight.grad.clone() for weight in adapter.parameters()]

    recomputed = gradients()
    monkeypatch.setattr("cutsew.method.adapter.checkpoint", lambda decoder, *args, use_reentrant: decoder(*args))
    assert all(torch.equal(a, b) for a, b in zip(recomputed, gradients(), strict=True))


def test_the_most_activations_held_are_those_of_one_group():
    features = torch.randn(1, 16, 3, 2)

    def held(query_group):
        adapter = Adapter(16, 64, **SMALL, query_group=query_group, max_grid=5).train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            adapter(features)
        return max(sizes)

    assert held(64) >= 2 * 64 * 64  # (heads, C, C)
    assert held(8) < 64 * 16  # what is given to the groups and comes from them


def test_each_class_has_its_own_weights_alone():
    torch.manual_seed(0)
    adapter = Adapter(16, 3, **SMALL).eval()
    features = torch.randn(2, 16, 3, 3)
    before = adapter(features)
    with torch.no_grad():
        adapter.weight[1] += 1
        adapter.bias[1] += 1
    after = adapter(features)
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_where_an_object_is_matters_through_positions_only():
    torch.manual_seed(0)
    adapter = Adapter(16, 3, **SMALL).eval()
    features = torch.randn(1, 16, 3, 3)
    moved = features.flip(3)
    assert not torch.allclose(adapter(features), adapter(moved), atol=1e-5)
    with torch.no_grad():
        adapter.position.column.zero_()
        adapter.position.row.zero_()
    assert torch.allclose(adapter(features), adapter(moved), atol=1e-5)
