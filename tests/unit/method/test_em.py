"""Blending and the losses (Eq. 13, 17-20), and the learning rates."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutsew.method.em import blend, e_step_loss, m_step_loss
from cutsew.method.schedule import rate_factors

LN3 = math.log(3)  # sigmoid(ln 3) = 3/4


def test_blend_by_hand():
    result = blend(torch.tensor([[[1.0, -2.0, 0.5], [0.0, 3.0, 0.5]]]))
    assert result.z.tolist() == [[1.0, 3.0, 0.5]]
    assert result.source.tolist() == [[0, 1, 0]]  # the tie goes to the background


logits = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)), elements=st.integers(-3, 3)
)


@settings(max_examples=100)
@given(logits)
def test_blend_is_numpys_max_and_its_gradient_reaches_the_first_winner_only(values):
    z = torch.from_numpy(values).requires_grad_()
    result = blend(z)
    assert np.array_equal(result.z.detach().numpy(), values.max(axis=1))
    assert np.array_equal(result.source.numpy(), values.argmax(axis=1))
    p = torch.full(result.z.shape, -10.0)
    e_step_loss(result.z, p).backward()
    expected = np.zeros_like(values)
    local_values = (torch.sigmoid(result.z.detach()) - torch.sigmoid(p)).numpy() / result.z.numel()
    np.put_along_axis(expected, values.argmax(axis=1)[:, None], local_values[:, None], axis=1)
    assert z.grad.numpy() == pytest.approx(expected, abs=1e-6)
    assert ((z.grad.numpy() != 0).sum(axis=1) == 1).all()


def test_m_loss_by_hand():
    p, z = torch.tensor([[0.0, LN3]]), torch.tensor([[0.0, LN3]])
    local_values = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert m_step_loss(p, z).item() == pytest.approx((math.log(2) + local_values) / 2, abs=1e-6)
    strong = torch.tensor([[0.0, 0.0]])
    expected = (math.log(2) + local_values) / 2 + 0.7 * math.log(2)
    assert m_step_loss(p, z, strong, 0.7).item() == pytest.approx(expected, abs=1e-6)


def test_e_loss_by_hand():
    result = e_step_loss(torch.tensor([[LN3]]), torch.tensor([[0.0]]))
    assert result.item() == pytest.approx(-(0.5 * math.log(0.75) + 0.5 * math.log(0.25)), abs=1e-6)


def test_each_loss_moves_its_own_side_only():
    p, z = torch.tensor([[0.3, -1.0]], requires_grad=True), torch.tensor([[2.0, 1.0]], requires_grad=True)
    m_step_loss(p, z).backward()
    assert z.grad is None
    assert p.grad.tolist()[0] == pytest.approx(((torch.sigmoid(p) - torch.sigmoid(z)) / 2).tolist()[0], abs=1e-6)
    p.grad = None
    e_step_loss(z, p).backward()
    assert p.grad is None
    assert (z.grad > 0).all()  # the student believes less, so both labels fall


def test_rates_by_hand():
    assert rate_factors(4, "constant", 0.0).tolist() == [1, 1, 1, 1]
    assert rate_factors(4, "cosine", 0.0) == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert rate_factors(6, "constant", 0.5) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])
    assert rate_factors(6, "cosine", 1 / 3) == pytest.approx([0.5, 1, 1, 0.853553, 0.5, 0.146447], abs=1e-6)


@given(st.integers(1, 200), st.sampled_from(["constant", "cosine"]), st.floats(0, 1))
def test_rates_rise_and_never_rise_again(steps, schedule, warmup):
    factors = rate_factors(steps, schedule, warmup)
    rising = round(warmup * steps)
    assert len(factors) == steps
    assert ((factors > 0) & (factors <= 1)).all()
    assert (np.diff(factors[:rising]) > 0).all()
    assert (np.diff(factors[rising:]) <= 0).all()
