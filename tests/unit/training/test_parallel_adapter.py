"""The adapter in two parts is the adapter, with the same draws; threads do not change a bit of it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.method.adapter import Adapter
from cutsew.runtime.batching import use_one_thread
from cutsew.training.parallel_adapter import SplitBatchAdapter

torch.set_num_threads(1)  # beside those of the pool


def adapter(dropout=0.1, channels=12, classes=5):
    torch.manual_seed(0)
    return Adapter(channels, classes, reduction=4, width=8, layers=2, heads=2, feedforward=6, dropout=dropout).train()


def learnt(model, call, features):
    """Return logits and all gradients of two calls whose losses are summed, with draws from one seed."""
    torch.manual_seed(1)
    model.zero_grad()
    logits = [call(features), call(features.flip(0))]
    (logits[0].square().mean() + 2 * logits[1].sigmoid().sum()).backward()
    return [*(x.detach() for x in logits), *(weight.grad.clone() for weight in model.parameters())]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5])
@settings(max_examples=8)
@given(images=st.integers(1, 9), height=st.integers(1, 3), width=st.integers(2, 4))
def test_it_is_the_adapter(threads, dropout, images, height, width):
    model = adapter(dropout)
    features = torch.randn(images, 12, height, width)
    statistics = model.norm.running_mean.clone()
    plain = learnt(model, model, features)
    after = model.norm.running_var.clone()
    model.norm.reset_running_stats()
    with ThreadPoolExecutor(threads, initializer=use_one_thread) as pool:
        parts = learnt(model, SplitBatchAdapter(model, pool), features)
    assert not torch.equal(model.norm.running_mean, statistics)
    assert torch.allclose(model.norm.running_var, after, rtol=1e-4)
    for one, other in zip(plain, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_threads_change_no_bit():
    model, features = adapter(), torch.randn(7, 12, 3, 3)
    result = []
    for threads in (1, 2, 3):
        with ThreadPoolExecutor(threads, initializer=use_one_thread) as pool:
            result.append(learnt(model, SplitBatchAdapter(model, pool), features))
    assert all(torch.equal(a, b) for other in result[1:] for a, b in zip(result[0], other, strict=True))


def test_dropout_draws_differ_from_seed_to_seed():
    model, features = adapter(0.5), torch.randn(4, 12, 2, 2)
    with ThreadPoolExecutor(2, initializer=use_one_thread) as pool:
        answer = SplitBatchAdapter(model, pool)
        torch.manual_seed(1)
        first, second = answer(features), answer(features)
        torch.manual_seed(1)
        assert torch.equal(first, answer(features)) and not torch.equal(first, second)
