"""Labels of the reference students."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.config import load
from cutsew.errors import UserError
from cutsew.method.reference_labels import CERTAIN, single_positive, smoothed, supervised
from cutsew.method.score import sigmoid
from cutsew.stages.reference_labels import reference_labels
from cutsew.storage.manifest import write_manifest
from cutsew.storage.zarr_reader import array_of, open_group, read

TRUTH = np.array([[1, 0, 1], [0, 0, 0], [-1, 1, 0]], dtype=np.int8)
TRUTHS = arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.sampled_from([-1, 0, 1]))


def test_supervised_by_hand():
    z = supervised(TRUTH)
    assert z.dtype == np.float32
    assert (z > 0).tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert np.array_equal(sigmoid(z) > 0.5, sigmoid(z).astype(np.float32) == 1)


def test_smoothed_by_hand():
    assert sigmoid(smoothed(TRUTH, 0.1))[0] == pytest.approx([0.95, 0.05, 0.95], abs=1e-6)
    assert sigmoid(smoothed(TRUTH, 0.4))[2] == pytest.approx([0.2, 0.8, 0.2], abs=1e-6)


@given(TRUTHS, st.integers(0, 99))
def test_single_positive_names_one_true_label_of_each_image_that_has_one(truth, seed):
    z = single_positive(truth, [f"d{i}" for i in range(len(truth))], seed)
    assert set(np.unique(z)) <= {CERTAIN, -CERTAIN}
    assert ((z > 0).sum(axis=1) == (truth == 1).any(axis=1)).all()
    assert (truth[z > 0] == 1).all()


def test_a_images_draw_depends_on_its_content_and_the_seed_alone():
    truth, digests = np.ones((40, 5), dtype=np.int8), [f"d{i}" for i in range(40)]
    z = single_positive(truth, digests, 9)
    assert np.array_equal(single_positive(truth[::-1], digests[::-1], 9), z[::-1])
    assert not np.array_equal(single_positive(truth, digests, 10), z)
    assert len(np.unique(z.argmax(axis=1))) == 5


CLASSES = ["cat", "dog", "bus"]
SETTINGS = {"classes": CLASSES, "references": {"smoothing": 0.2}, "train": {"seed": 9}}


@pytest.fixture
def images(tmp_path):
    table = pd.DataFrame({"id": ["a", "b", "c"], "path": ["a", "b", "c"], "width": 8, "height": 6, "bytes": 9})
    table["digest"], table["split"], table["shard"] = ["0", "1", "2"], ["train", "train", "test"], 0
    write_manifest(tmp_path / "images.parquet", table)
    truth = pd.DataFrame([("a", 1, 0, 1), ("b", 0, 1, -1)], columns=["id", *CLASSES])
    truth.astype(dict.fromkeys(CLASSES, "int8")).to_parquet(tmp_path / "truth.parquet")
    return tmp_path


def labels_of(images, kind):
    result = images / "labels.zarr"
    reference_labels(images / "images.parquet", images / "truth.parquet", result, kind=kind, settings=SETTINGS)
    return read(array_of(open_group(result), "z"))


def test_the_stage_by_hand(images):
    high = np.log(9)
    positive = np.array([[True, False, True], [False, True, False], [False] * 3])  # c has no truth and is held out
    assert np.array_equal(labels_of(images, "supervised"), np.where(positive, CERTAIN, -CERTAIN))
    assert labels_of(images, "smoothed") == pytest.approx(np.where(positive, high, -high), abs=1e-6)
    record = json.loads((images / "labels.json").read_text())
    assert record["stage"] == "reference_labels" and record["settings"]["kind"] == "smoothed"


def test_the_stages_draw_is_golden(images):
    assert (labels_of(images, "single_positive") > 0).tolist() == [
        [False, False, True],
        [False, True, False],
        [False] * 3,
    ]


def test_a_training_image_without_truth_is_named(images):
    pd.read_parquet(images / "truth.parquet").iloc[1:].to_parquet(images / "truth.parquet")
    with pytest.raises(UserError, match="^references.kinds: supervised needs .* and 1 have none, such as 'a'; add"):
        labels_of(images, "supervised")
    assert not (images / "labels.zarr").exists()


def test_classes_without_truth_are_refused_and_single_labels_told(images, caplog):
    table = pd.read_parquet(images / "truth.parquet")
    table.loc[0, CLASSES[0]] = -1
    table.to_parquet(images / "truth.parquet")
    labels_of(images, "supervised")
    assert "2 ground-truth labels of training images are unknown; supervised treats them as negative" in caplog.messages
    table.assign(**{CLASSES[1]: -1}).to_parquet(images / "truth.parquet")
    with pytest.raises(UserError, match=rf"supervised needs true labels of all classes, and .* for {CLASSES[1]}; add"):
        labels_of(images, "supervised")


def test_an_unknown_kind_is_refused(images):
    with pytest.raises(UserError, match="^--kind: best is not one"):
        labels_of(images, "best")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"references": {"kinds": ["supervised"]}},
            "references.kinds: supervised needs true labels",
        ),
        ({"references": {"kinds": ["zero_shot"]}, "student": {"kind": "none"}}, "references.kinds: need a student"),
        ({"references": {"smoothing": 0}}, "references.smoothing: "),
        ({"references": {"kinds": ["oracle"]}}, "references.kinds.0: "),
    ],
)
def test_bad_settings_are_refused(change, line):
    with pytest.raises(UserError, match=f"^{line}"):
        load({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": "x", "name": "x"}, **change})
