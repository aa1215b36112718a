"""One step of Algorithm 1 by hand: what the M-step and the E-step change, and by how much."""

import math
from types import SimpleNamespace

import pytest
import torch

from cutsew.config.training import AdapterConfig as AdapterSettings
from cutsew.config.training import AdapterTrainingConfig
from cutsew.training.computed_features import FeatureBatch
from cutsew.training.trainer import Checkpoint, Trainer, new_adapter

Z = torch.tensor([[2.0, -3.0], [-1.0, 1.0], [0.5, 0.5]])
SIZES = AdapterSettings(reduction=4, width=8, layers=1, heads=2, feedforward=8, dropout=0.0)


def trainer(tmp_path, **changes) -> Trainer:
    train = AdapterTrainingConfig(**{"epochs": 1, "batch_size": 2, "weight_decay": 0.0, **changes})
    return Trainer(new_adapter(12, 2, SIZES, (2, 2), 9), Z, train, 4, Checkpoint(tmp_path, "", math.inf))


def batch() -> FeatureBatch:
    """Two sewn images: row 0 with row 1 pasted on, and row 1 alone, padded with itself."""
    features = torch.randn(2, 12, 2, 2, generator=torch.Generator().manual_seed(0))
    return FeatureBatch(torch.tensor([[0, 1], [1, 1]]), torch.ones(2, dtype=torch.bool), features, None)


def weights(one: Trainer) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in one.adapter.parameters()]


def test_one_step_by_hand(tmp_path):
    """AdamW's first step moves each value by its rate against the sign of its gradient."""
    one = trainer(tmp_path, lr_adapter=1e-3, lr_estimator=0.1)
    start = weights(one)
    p = torch.sigmoid(one.adapter(batch().weak).detach())
    losses = one.training_step(batch())
    z = torch.sigmoid(torch.tensor([[2.0, 1.0], [-1.0, 1.0]]))  # the larger logit of each class
    bce = torch.nn.functional.binary_cross_entropy
    assert losses.m == pytest.approx(float(bce(p, z)), abs=1e-6)
    assert losses.e == pytest.approx(float(bce(z, p)), abs=1e-6)
    gradient = z - p  # of the E-step's loss with respect to the blended logits
    expected = Z.clone()
    expected[0, 0] -= 0.1 * gradient[0, 0].sign()  # won class 0 of the first image
    expected[1, 0] -= 0.1 * gradient[1, 0].sign()
    expected[1, 1] -= 0.1 * gradient[:, 1].sum().sign()  # won class 1 of both images
    result = one.labels.materialize()
    assert torch.allclose(result, expected, atol=1e-4)
    assert torch.equal(result[2], Z[2]) and result[0, 1] == Z[0, 1]  # not shown; lost the blend
    moved = torch.cat([(new - old).abs().flatten() for new, old in zip(weights(one), start, strict=True)])
    assert moved.max() == pytest.approx(1e-3, rel=1e-2)


def test_the_m_step_leaves_the_labels_alone_and_the_e_step_the_adapter(tmp_path):
    one = trainer(tmp_path)
    start = weights(one)
    rows = one.labels.rows(torch.tensor([0, 1]))
    one.e_step(rows.sum(), torch.tensor([0, 1]), rows)
    assert all(torch.equal(new, old) for new, old in zip(weights(one), start, strict=True))
    refined = one.labels.materialize()
    assert (refined[:2] < Z[:2]).all() and torch.equal(refined[2], Z[2])
    one.m_step(one.adapter(batch().weak).sum())
    assert torch.equal(one.labels.materialize(), refined)
    assert not all(torch.equal(new, old) for new, old in zip(weights(one), start, strict=True))


def test_a_state_that_is_restored_goes_on_bit_for_bit(tmp_path):
    through, first, second = (trainer(tmp_path) for _ in range(3))
    for _ in range(4):
        through.training_step(batch())
    for _ in range(2):
        first.training_step(batch())
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.training_step(batch())
    assert all(torch.equal(a, b) for a, b in zip(weights(through), weights(second), strict=True))
    assert torch.equal(through.labels.materialize(), second.labels.materialize())
    assert through.history() == second.history() and len(second.history()) == 4


def test_history_by_hand(tmp_path):
    """Four steps of a cosine over one epoch of four: the rate falls from step to step."""
    one = trainer(tmp_path, lr_adapter=1e-3, lr_estimator=0.1, em_weight=0.0, schedule="cosine")
    for _ in range(2):
        one.training_step(batch())
    rows = one.history()
    assert [row["step"] for row in rows] == [0, 1] and [row["epoch"] for row in rows] == [0, 0]
    assert [row["lr_adapter"] for row in rows] == pytest.approx([1e-3, 1e-3 * (1 + math.cos(math.pi / 4)) / 2])
    assert [row["lr_estimator"] for row in rows] == [0.0, 0.0]
    assert torch.equal(one.labels.materialize(), Z)


@pytest.mark.parametrize(("cost", "written"), [(0.01, 120), (8.0, 23), (80.0, 2)])
def test_checkpoints_take_at_most_a_twentieth_of_the_time(tmp_path, monkeypatch, cost, written):
    """An hour of steps of a second each, on a clock of its own, with a minimum interval of 30 seconds."""
    clock = SimpleNamespace(now=0.0)

    def save(_state, draft):
        clock.now += cost
        draft.touch()

    monkeypatch.setattr("cutsew.training.trainer.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("cutsew.training.trainer.torch.save", save)
    checkpoint = Checkpoint(tmp_path, "", 30)
    checkpoint.expect(int(cost * 100e6))
    saves, spent = [], 0.0
    while clock.now < 3600:
        clock.now += 1
        if checkpoint.due():
            checkpoint.save({})
            saves.append(clock.now)
            spent += cost
            assert spent <= clock.now / 20
    assert abs(len(saves) - written) <= 4
    assert min(b - a for a, b in zip([0.0, *saves], saves, strict=False)) >= 30


def test_without_a_minimum_interval_every_step_is_saved(tmp_path):
    checkpoint = Checkpoint(tmp_path, "", 0)
    checkpoint.expect(10**15)
    assert checkpoint.due()
