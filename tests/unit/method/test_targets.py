"""How many labels an image has on average: the numbers, and the stage."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.config import load
from cutsew.errors import UserError
from cutsew.method.label_count import (
    automatic_count,
    estimate_label_count,
    fit_logit_shift,
    fit_two_gaussians,
    standard_shift,
    targets,
)
from cutsew.method.metrics import average_precision
from cutsew.method.score import sigmoid
from cutsew.stages.targets import targets as stage
from cutsew.storage.zarr_layout import label_spec
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.storage.zarr_writer import write_group


def test_standardized_values_are_shifted_to_the_estimated_count():
    u = np.random.default_rng(0).normal(0, 1.4, (200, 6))
    labels = np.full((200, 6), np.log(0.25 / 0.75))  # 1.5 labels an image
    count, shift = standard_shift(u, labels)
    assert count == pytest.approx(min(1.5, estimate_label_count(u)))
    assert sigmoid(u - shift).sum(axis=1).mean() == pytest.approx(count, abs=1e-6)
    assert standard_shift(u, labels - 3)[0] == pytest.approx(6 * sigmoid(np.log(1 / 3) - 3))  # never above their sum
    assert standard_shift(u[:1], labels[:1])[0] == pytest.approx(1.5)  # nothing to estimate from
    assert standard_shift(u[:0], labels[:0]) == (0.0, 0.0)


logits = arrays(np.float32, (6, 4), elements=st.floats(-13, 13, width=32))


def test_by_hand():
    # one image, two classes at 1 and -1: at t = 0 they sum to 1, whatever the sharpening
    z = np.array([[1.0, -1.0]])
    assert fit_logit_shift(z, 1.0, 1.0) == pytest.approx(0, abs=1e-9)
    assert fit_logit_shift(z, 1.0, 3.0) == pytest.approx(0, abs=1e-9)
    # both at 2: each must be 0.25, whose logit is -log 3; sharpened twice, 2 (2 - t) = -log 3
    assert fit_logit_shift(np.full((1, 2), 2.0), 0.5, 2.0) == pytest.approx(2 + np.log(3) / 2)
    assert targets(np.array([[2.0, 0.0]]), 0.5, 2.0).tolist() == [[3.0, -1.0]]


@given(logits, st.floats(0.05, 3.9), st.floats(0.2, 5))
def test_the_mean_number_is_the_chosen_one(z, count, sharpen):
    result = targets(z, fit_logit_shift(z, count, sharpen), sharpen)
    assert sigmoid(result.astype(np.float64)).sum(axis=1).mean() == pytest.approx(count, abs=1e-3)


@given(logits, st.floats(0.05, 3.9), st.integers(0, 99))
def test_average_precision_stays_as_it_is(z, count, seed):
    z = np.round(z, 1)  # so that float32 keeps apart what was apart
    truth = np.random.default_rng(seed).integers(0, 2, z.shape).astype(np.int8)
    result = targets(z, fit_logit_shift(z, count, 2.0), 2.0)
    assert average_precision(truth, result) == pytest.approx(average_precision(truth, z), nan_ok=True)


def test_the_count_lies_between_one_and_the_upper_humps():
    rng = np.random.default_rng(3)
    shown = rng.random((4000, 3)) < [0.1, 0.3, 0.5]
    z = np.where(shown, rng.normal(2, 1, shown.shape), rng.normal(-4, 1, shown.shape))
    # 0.1 + 0.3 + 0.5 of the images lie in an upper hump; the geometric mean of that and 1
    assert estimate_label_count(z) == pytest.approx(0.9**0.5, abs=0.02)


def test_a_class_that_says_nothing_counts_half():
    assert estimate_label_count(np.zeros((5, 2))) == 1.0


# The stage


@pytest.fixture
def run(tmp_path):
    """Nine images in chunks of two, every third one held out, and their labels."""
    ids = [f"{i}.jpg" for i in range(9)]
    images = pd.DataFrame({"id": ids, "path": ids, "width": 1, "height": 1, "bytes": 1, "digest": ids})
    images["split"] = ["test" if i % 3 == 0 else "train" for i in range(9)]
    images.assign(shard=0).to_parquet(tmp_path / "images.parquet", index=False)
    z = np.random.default_rng(1).normal(0, 3, (9, 3)).astype(np.float32)
    coordinates = {"image": ids, "class": ["cat", "dog", "bus"]}
    write_group(tmp_path / "pseudo.zarr", {"z": (label_spec(9, 3, 2), z)}, coordinates)
    return tmp_path


def z_of(path):
    return read(array_of(open_group(path), "z"))


def test_golden(run):
    settings = {"targets": {"labels_per_image": 1.2, "sharpen": 2.0}}
    stage(run / "images.parquet", run / "pseudo.zarr", run / "targets.zarr", settings)
    before, after = z_of(run / "pseudo.zarr"), z_of(run / "targets.zarr")
    train = np.arange(9) % 3 != 0
    assert sigmoid(after[train]).sum(axis=1).mean() == pytest.approx(1.2, abs=1e-5)
    facts = json.loads((run / "targets.json").read_text())["facts"]
    assert facts == {"count": 1.2, "shift": pytest.approx(GOLDEN_SHIFT, abs=1e-6), "images": 6}
    assert after == pytest.approx(2 * (before - GOLDEN_SHIFT), abs=1e-4)


GOLDEN_SHIFT = 0.4818328


def test_auto_estimates(run):
    stage(run / "images.parquet", run / "pseudo.zarr", run / "targets.zarr", {"targets": {"labels_per_image": "auto"}})
    facts = json.loads((run / "targets.json").read_text())["facts"]
    assert facts["count"] == pytest.approx(automatic_count(z_of(run / "pseudo.zarr")[np.arange(9) % 3 != 0]))


def test_more_labels_than_classes_are_refused():
    with pytest.raises(UserError, match="targets.labels_per_image: 2 is not less than the number of classes"):
        load({"classes": ["a", "b"], "targets": {"labels_per_image": 2.0}})


def test_the_automatic_count_never_raises_the_mass():
    """Both classes say little: two Gaussians name half of the images each, but the labels sum to far less."""
    z = np.full((50, 2), -3.0)
    assert estimate_label_count(z) == 1.0
    assert automatic_count(z) == pytest.approx(2 / (1 + np.exp(3)))
    assert automatic_count(z + 6) == 1.0


def test_without_a_softmax_the_labels_own_sum_is_the_least():
    """Ten images of a hundred show the class: upper weight 0.1, labels that sum to 0.05 an image."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(0, 0.1, 10), rng.normal(-9, 0.1, 90)])[:, None]
    mass = sigmoid(z).sum(axis=1).mean()
    assert mass == pytest.approx(0.05, abs=3e-3)
    assert estimate_label_count(z, mass) == pytest.approx((0.1 * mass) ** 0.5, rel=0.02)
    assert estimate_label_count(z) == pytest.approx(0.1**0.5, rel=0.02)
    assert automatic_count(z, sum_to_one=False) == automatic_count(z) == mass  # neither adds mass
    z = np.concatenate([rng.normal(9, 0.1, 10), rng.normal(-1, 0.1, 90)])[:, None]  # false alarms sum to more
    mass = sigmoid(z).sum(axis=1).mean()
    assert automatic_count(z, sum_to_one=False) == pytest.approx((0.1 * mass) ** 0.5, rel=0.02)


def test_an_upper_gaussian_that_is_empty_counts_one_image():
    z = np.array([[-2.5575], [-2.3359], [-2.7881], [-2.4391], [-2.5479], [-2.5111]], np.float32)
    mass = sigmoid(z).sum(axis=1).mean()
    assert (mass / 6) ** 0.5 <= estimate_label_count(z, mass, 1 / 6) <= mass**0.5
    assert 1e-3 < automatic_count(z, sum_to_one=False) <= mass


def test_two_gaussians_by_hand():
    z = np.sort(np.concatenate([np.random.default_rng(3).normal(m, 1, n) for m, n in ((-4, 900), (2, 100))]))
    weights, means, variances = fit_two_gaussians(z)
    order = np.argsort(means)
    np.testing.assert_allclose(weights[order], [0.9, 0.1], atol=0.01)
    np.testing.assert_allclose(means[order], [-4, 2], atol=0.2)
    np.testing.assert_allclose(variances[order], [1, 1], atol=0.3)
