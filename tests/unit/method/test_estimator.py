"""The estimator Z under the lazy AdamW: it does what torch's dense one would."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.method import em as module
from cutsew.method.em import LabelTable


def dense(z, gradients, rates, weight_decay):
    """Run torch's AdamW over the whole table."""
    table = torch.nn.Parameter(z.clone())
    optimizer = torch.optim.AdamW([table], lr=1.0, weight_decay=weight_decay)
    for (index, gradient), rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        table.grad = torch.zeros_like(table)
        table.grad[index] = gradient
        optimizer.step()
    return table.detach()


def lazy(z, gradients, rates, weight_decay):
    table = LabelTable(z, rates, weight_decay)
    for index, gradient in gradients:
        table.rows(index)
        table.step(index, gradient)
    return table


def settled(z, gradients, rates, weight_decay):
    return lazy(z, gradients, rates, weight_decay).materialize()


def random_steps(seed, rows, classes, steps, at_once):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, classes, generator=generator)
    gradients = []
    for _ in range(steps):
        index = torch.randperm(rows, generator=generator)[:at_once]
        gradient = torch.randn(len(index), classes, generator=generator)
        gradient[torch.rand(gradient.shape, generator=generator) < 0.5] = 0  # losers of the blend
        gradients.append((index, gradient))
    return z, gradients


def test_one_step_by_hand():
    # AdamW's first step is the rate times the gradient's sign, after decay: 2 (1 - 0.1 x 0.5) - 0.1 = 1.8.
    table = lazy(torch.tensor([[2.0], [4.0]]), [(torch.tensor([0]), torch.tensor([[0.3]]))], [0.1], 0.5)
    assert table.materialize().tolist() == [[pytest.approx(1.8)], [pytest.approx(3.8)]]  # row 1 only decays


def in_double(z, gradients):
    return z.double(), [(index, gradient.double()) for index, gradient in gradients]


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 60), st.floats(0, 0.5), st.booleans())
def test_it_gives_what_dense_adamw_gives(seed, rows, steps, weight_decay, falling):
    z, gradients = in_double(*random_steps(seed, rows, 3, steps, 2))
    rates = [0.01 * (1 - i / steps if falling else 1) for i in range(steps)]
    result = lazy(z, gradients, rates, weight_decay)
    assert torch.allclose(result.materialize(), dense(z, gradients, rates, weight_decay), rtol=0, atol=1e-9)
    assert torch.equal(result.materialize(), result.materialize())


def test_500_steps_stay_within_a_millionth_of_dense_adamw_over_gaps_longer_than_the_horizon(monkeypatch):
    """In float64. In float32 torch's own AdamW rounds every row at every step and strays by 1e-5; the lazy one less."""
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    single = random_steps(1, 400, 4, 500, 1)
    double, rates = in_double(*single), [0.01] * 500
    truth = dense(*double, rates, 0.01)
    assert (lazy(*double, rates, 0.01).materialize() - truth).abs().max() < 1e-6
    strays = [(run(*single, rates, 0.01) - truth).abs().max() for run in (settled, dense)]
    assert strays[0] < strays[1] / 4
    assert strays[1] > 1e-6


def test_a_step_touches_the_rows_of_its_batch_only():
    z, gradients = random_steps(0, 6, 2, 3, 2)
    table = LabelTable(z, [0.01] * 3, 0.01)
    for index, gradient in gradients:
        before = table.z.clone()
        table.rows(index)
        table.step(index, gradient)
        assert (table.z != before).any(dim=1).nonzero().flatten().tolist() == sorted(index.tolist())


def test_a_rate_of_zero_leaves_the_labels_alone():
    z, gradients = random_steps(0, 6, 2, 20, 2)
    assert torch.equal(lazy(z, gradients, [0.0] * 20, 0.01).materialize(), z)


def test_it_goes_on_bit_for_bit_from_its_state():
    z, gradients = random_steps(3, 8, 2, 30, 2)
    rates = [0.01] * 30
    through = lazy(z, gradients, rates, 0.01)
    first = LabelTable(z, rates, 0.01)
    for index, gradient in gradients[:11]:
        first.rows(index)
        first.step(index, gradient)
    second = LabelTable(z, rates, 0.01)
    second.load_state_dict(first.state_dict())
    for index, gradient in gradients[11:]:
        second.rows(index)
        second.step(index, gradient)
    assert torch.equal(second.materialize(), through.materialize())
