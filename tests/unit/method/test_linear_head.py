"""The linear head: its formula, its calibrated loss, and its training."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sewing_world import backbone, make_world, run_train, settings
from torch.nn.functional import binary_cross_entropy_with_logits

from cutsew.config.method import SewConfig
from cutsew.config.networks import OpenClipStudentConfig
from cutsew.config.training import LinearTrainingConfig
from cutsew.inference.model_files import export
from cutsew.method.crops import Square
from cutsew.method.linear_head import LinearHead, calibrated_loss, head_loss, logits, standardize
from cutsew.method.random import keyed_rng, torch_seed
from cutsew.models import student
from cutsew.storage.manifest import read_manifest
from cutsew.storage.result_tables import Thresholds
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.training import linear
from cutsew.training.linear import budget
from cutsew.training.sewing_plan import read_training_images
from cutsew.training.sewn_dataset import EpochSampler, SewnDataset
from cutsew.training.trainer import NAME, Checkpoint


def head_of(weight, bias, mean=None, std=None):
    head = LinearHead(len(weight[0]), len(weight))
    channels = len(weight[0])
    state = {"weight": weight, "bias": bias, "mean": mean or [0.0] * channels, "std": std or [1.0] * channels}
    head.load_state_dict({name: torch.tensor(values) for name, values in state.items()})
    return head


def test_logits_by_hand():
    """Two cells score 0 and ln 3: mean ln 3 / 2, attention 1/4 and 3/4, so 3/4 ln 3, and the bias."""
    cells = torch.tensor([[[0.0, 1.0], [np.log(3.0), -1.0]]], dtype=torch.float32)
    result = logits(cells, torch.tensor([[1.0, 0.0]]), torch.tensor([0.5]))
    assert result.item() == pytest.approx(0.5 + np.log(3) * (0.5 + 0.75), abs=1e-6)


def test_features_are_standardized_and_clamped():
    head = head_of([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], mean=[1.0, 2.0], std=[0.999, 0.0])
    features = torch.tensor([[[[3.0]], [[2.0]]], [[[100.0]], [[-1.0]]]])  # (2, 2, 1, 1)
    # One cell: the logit is twice its score. Channel 1 has std 0, so (x - 2) / 1e-3, clamped to [-4, 6].
    assert head(features).tolist() == [pytest.approx([4.0, 0.0]), pytest.approx([12.0, -8.0])]
    assert head.pool(features).tolist() == [pytest.approx([2.0, 0.0]), pytest.approx([6.0, -4.0])]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**31 - 1))
def test_logits_lie_between_the_weakest_and_strongest_cell_and_ignore_their_order(classes, channels, cells, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(3, cells, channels, generator=draw)
    weight, bias = torch.randn(classes, channels, generator=draw), torch.randn(classes, generator=draw)
    result = logits(x, weight, bias)
    scores = x @ weight.T
    assert (result <= 2 * scores.amax(dim=1) + bias + 1e-4).all() and (
        result >= scores.mean(dim=1) + scores.amin(dim=1) + bias - 1e-4
    ).all()
    shuffled = x[:, torch.randperm(cells, generator=draw)]
    assert torch.allclose(result, logits(shuffled, weight, bias), atol=1e-4)


def test_loss_by_hand():
    predicted, target = torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 0.5]] * 2)
    assert head_loss(predicted, target).item() == pytest.approx(3 * np.log(2))


@given(st.floats(0.05, 5), st.floats(-3, 3), st.integers(0, 2**31 - 1))
def test_calibrated_loss_does_not_see_slope_and_offset(slope, offset, seed):
    """Logits that are right but for one slope and offset reach the entropy of their targets, the least there is."""
    z = np.random.default_rng(seed).normal(0, 2, (50, 4))
    target = 1 / (1 + np.exp(-z))
    entropy = -(target * np.log(target) + (1 - target) * np.log1p(-target)).mean()
    result = calibrated_loss(((z - offset) / slope).astype(np.float32), target.astype(np.float32))
    assert result == pytest.approx(entropy, abs=1e-4)


def test_budget_by_hand():
    rules = LinearTrainingConfig(steps=800, batch_size=64, sewn_epochs=8)
    assert budget(300, 1000, rules, 10**9) == (8, 2400, 300, False, 40)
    assert budget(12_800, 1000, rules, 10**9) == (4, 51_200, 12_800, False, 800)  # 800 steps are four epochs of 200
    assert budget(1000, 1000, rules, 3_000_000) == (3, 3000, 375, False, 48)  # three epochs fit into memory
    assert budget(1000, 1000, rules, 800_000) == (50, 800, 100, True, 800)  # 16 steps an epoch
    # no more is held than is trained on
    assert budget(100_000, 1000, rules, 80_000_000) == (1, 51_200, 10_000, True, 800)
    assert budget(65, 1000, rules, 10**9).sewn_epochs == 8  # one step an epoch: the last image joins it


# The stage


SMALL = {"steps": 12, "batch_size": 4, "sewn_epochs": 2}


def chosen(**changes):
    return settings(train=LinearTrainingConfig(**SMALL).model_dump(mode="json"), **changes)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    return run_train(world, tmp_path_factory.mktemp("out"), chosen(train__lr=0.01)).parent


def weights(folder):
    return load_file(folder / "adapter.safetensors")


def assert_same(one, other):
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()


def test_golden(trained):
    history = pd.read_csv(trained / "history.csv")
    assert len(history) == 12 and history["lr_adapter"].iloc[0] == pytest.approx(0.01)
    assert history["lr_adapter"].is_monotonic_decreasing
    assert history["m_loss"].tolist() == pytest.approx(GOLDEN, abs=1e-4)
    assert weights(trained)["weight"].flatten()[:4].tolist() == pytest.approx(GOLDEN_WEIGHT, abs=1e-4)


GOLDEN = [0.677089, 0.675714, 0.653461, 0.681156, 0.662036, 0.662614]
GOLDEN += [0.683451, 0.635985, 0.645064, 0.665772, 0.625743, 0.671758]
GOLDEN_WEIGHT = [-0.00795, 0.005158, 0.061342, -0.05565]


def test_it_does_what_it_says(world, trained):
    """The same training written down plainly, on images sewn one by one and with a head of its own."""
    rules = chosen()
    images = read_manifest(world / "images.parquet", split="train")
    training = read_training_images(images, world / "patches.parquet")
    sew, seed = SewConfig.model_validate(rules["sew"]), rules["train"]["seed"]
    dataset = SewnDataset(training, sew, Square(16, "bicubic"), seed, strong=False, skip_plain=False, workers=0)
    shown = [key for keys in EpochSampler(len(images), 4, 2, seed).batches(range(6)) for key in keys]
    encoder = backbone(OpenClipStudentConfig())
    features = torch.cat([encoder(dataset[key].weak[None]) for key in shown])
    sources = torch.stack([dataset[key].sources for key in shown])
    z = torch.from_numpy(read(array_of(open_group(world / "fused.zarr"), "z"))[images["row"]])
    target = torch.stack([z[one].max(dim=0).values for one in sources]).sigmoid()
    first = features[: len(images)].transpose(0, 1).flatten(1)
    mean, std = first.mean(dim=1), first.std(dim=1, correction=0)
    cells = standardize(features, mean, std).half().float()

    draw = torch.Generator().manual_seed(torch_seed(seed, "linear"))
    weight = (0.01 * torch.randn(3, 12, generator=draw)).requires_grad_()
    bias = z.sigmoid().mean(dim=0).logit().requires_grad_()
    optimizer = torch.optim.AdamW([weight, bias], weight_decay=0.01)
    orders = (keyed_rng(seed, "linear order", epoch).permutation(len(shown)) for epoch in itertools.count())
    batches = (order[4 * i : 4 * i + 4] for order in orders for i in range(len(shown) // 4))
    for step, batch in zip(range(12), batches, strict=False):
        optimizer.param_groups[0]["lr"] = 0.01 * 0.5 * (1 + np.cos(np.pi * step / 12))
        optimizer.zero_grad()
        score = cells[batch] @ weight.T
        predicted = score.mean(dim=1) + (score.softmax(dim=1) * score).sum(dim=1) + bias
        binary_cross_entropy_with_logits(predicted, target[batch], reduction="sum").div(4).backward()
        optimizer.step()
    result = weights(trained)
    assert torch.allclose(result["mean"], mean, atol=1e-5) and torch.allclose(result["std"], std, atol=1e-5)
    assert torch.allclose(result["weight"], weight.detach(), atol=1e-4)
    assert torch.allclose(result["bias"], bias.detach(), atol=1e-4)
    facts = json.loads((trained / "adapter.json").read_text())["facts"]
    assert (facts["rate"], facts["sewn_epochs"], facts["steps"]) == (0.01, 2, 12)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(world, trained, tmp_path, workers):
    assert_same(trained, run_train(world, tmp_path, chosen(train__lr=0.01), workers=workers).parent)


def test_the_rate_is_chosen_without_labels(world, tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "LEAST_ROWS", 2)
    folder = run_train(world, tmp_path, chosen(train__rates=[1e-4, 1e-2], train__steps=40)).parent
    facts = json.loads((folder / "adapter.json").read_text())["facts"]
    tried = facts["calibrated_loss_by_rate"]
    assert set(tried) == {"0.0001", "0.01"} and facts["rate"] == float(min(tried, key=tried.get))


def test_of_many_images_and_classes_a_sample_decides_the_rate(world, tmp_path, monkeypatch):
    """Each half evaluates at most RATE_PAIRS logits of 3 classes: two images, where the world has more."""
    monkeypatch.setattr(linear, "LEAST_ROWS", 2)
    rules, sizes = chosen(train__rates=[1e-4, 1e-2], train__steps=4), []

    def recorded(predicted, target):
        sizes.append(predicted.shape)
        return calibrated_loss(predicted, target)

    monkeypatch.setattr(linear, "calibrated_loss", recorded)
    run_train(world, tmp_path / "all", rules)
    monkeypatch.setattr(linear, "RATE_PAIRS", 6)
    run_train(world, tmp_path / "sample", rules)
    every, sample = sizes[:2], sizes[2:]
    assert len(set(every)) == len(set(sample)) == 1
    assert sample[0][0] <= 4 < every[0][0] and sample[0][1] == every[0][1] == 3


def test_with_too_few_images_the_least_rate_is_taken(world, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = run_train(world, tmp_path, chosen()).parent
    assert json.loads((folder / "adapter.json").read_text())["facts"]["rate"] == 3e-4
    assert "too few images to choose a rate" in caplog.text


class KilledError(Exception):
    pass


def test_killed_while_it_streams_it_ends_the_same(world, tmp_path, monkeypatch):
    """Where one epoch's features do not fit into memory, they are used as they are made, and checkpoints are kept."""
    monkeypatch.setattr(linear, "KEPT_BYTES", 1)
    rules = chosen(train__lr=0.01)
    whole = run_train(world, tmp_path / "whole", rules).parent
    step, turns = linear._Fit.step, itertools.count()

    def killed(self, number, *args):
        if next(turns) == 7:
            raise KilledError
        return step(self, number, *args)

    with monkeypatch.context() as patch:
        patch.setattr(linear._Fit, "step", killed)
        with pytest.raises(KilledError):
            run_train(world, tmp_path / "killed", rules)
    assert len(torch.load(tmp_path / "killed" / NAME, weights_only=True)["losses"]) == 7
    assert_same(whole, run_train(world, tmp_path / "killed", rules).parent)
    assert not (tmp_path / "killed" / NAME).exists()


def test_streaming_takes_checkpoints_only_when_they_are_due(world, tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "KEPT_BYTES", 1)
    monkeypatch.setattr(Checkpoint, "due", lambda self: False)
    monkeypatch.setattr(Checkpoint, "save", lambda self, state: pytest.fail("not due"))
    run_train(world, tmp_path, chosen(train__lr=0.01))


def test_the_student_is_loaded_and_exported(trained, tmp_path):
    pytest.importorskip("onnxruntime")
    loaded = student.load(trained, build=backbone)
    assert isinstance(loaded.adapter, LinearHead)
    assert export(tmp_path / "model.onnx", loaded, Thresholds("fixed", {"fixed": [0.5] * 3})) < 1e-3
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert loaded.embed(images).shape == (2, 12) and loaded.maps(images, torch.tensor([0, 2])).shape == (2, 4, 4)


@pytest.mark.parametrize("block", [1, 100, 2**22])
def test_biases_start_at_the_mean_probability(monkeypatch, block):
    monkeypatch.setattr(linear, "BLOCK", block)
    z = torch.tensor([[0.25, 0.5, 1e-9], [0.75, 0.9, 1e-9]]).logit()
    expected = [0.0, math.log(0.7 / 0.3), math.log(1e-4 / (1 - 1e-4))]
    torch.testing.assert_close(linear._prior(z), torch.tensor(expected), atol=1e-6, rtol=1e-6)
    z = 4 * torch.randn(3000, 77, generator=torch.Generator().manual_seed(0)) - 3
    whole = torch.sigmoid(z.double()).mean(dim=0).logit(1e-4).float()
    torch.testing.assert_close(linear._prior(z), whole, atol=1e-6, rtol=1e-6)
