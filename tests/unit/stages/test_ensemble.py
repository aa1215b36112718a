"""Student and teacher together: the numbers, and the stage."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sewing_world import CLASSES, TEST, TRAIN, backbone, make_world, run_train, settings
from synthetic_run import write_zarr

from cutsew.config import load
from cutsew.errors import UserError
from cutsew.method.ensemble import ScoreStats, ensemble, score_stats, standardize
from cutsew.pipeline.graph import STAGES
from cutsew.stages import ensemble as stage
from cutsew.stages import predict
from cutsew.storage.manifest import read_manifest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.zarr_layout import logit_specs
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.storage.zarr_writer import new_group

logits = arrays(np.float64, (6, 3), elements=st.floats(-13, 13).map(lambda x: round(x, 3)))


def test_by_hand():
    # logits 1 and 5: mean 3, deviation 2; -1 and 0: mean -0.5, deviation 0.5
    student, teacher = score_stats(np.array([[1.0], [5.0]])), score_stats(np.array([[-1.0], [0.0]]))
    assert student == (3, 2) and teacher == (-0.5, 0.5)
    # 7 stands (7 - 3) / 2 = 2 above, 0.25 stands 1.5 above; the mean, 1.75, on the student's scale: 3 + 2 * 1.75
    assert ensemble(np.array([[7.0]]), np.array([[0.25]]), student, teacher) == pytest.approx(6.5)


def test_a_model_that_always_says_the_same_leaves_it_to_the_other():
    same, other = ScoreStats(np.array([4.0]), np.array([0.0])), ScoreStats(np.array([0.0]), np.array([2.0]))
    z = np.array([[4.0], [4.0]]), np.array([[2.0], [6.0]])
    assert standardize(z[0], same).tolist() == [[0], [0]]
    # the teacher's 1 and 3 are halved, and the student's deviation of 0 counts as 1
    assert ensemble(*z, same, other).ravel().tolist() == [4.5, 5.5]
    assert ensemble(z[1], z[0], other, same).ravel().tolist() == [1, 3]


@given(logits, logits, st.floats(0.25, 4), st.floats(-5, 5))
def test_the_teachers_scale_does_not_matter(student, teacher, factor, shift):
    spread = teacher + np.linspace(0, 1, 6)[:, None] * [1, 2, 3]
    stats = score_stats(student)
    one = ensemble(student, spread, stats, score_stats(spread))
    moved = factor * spread + shift
    assert one == pytest.approx(ensemble(student, moved, stats, score_stats(moved)), abs=1e-3)


@given(logits)
def test_with_itself_a_student_stays_as_it_is(z):
    stats = score_stats(z)
    assert ensemble(z, z, stats, stats) == pytest.approx(np.where(stats.std > 0, z, stats.mean), abs=1e-4)


# The stage


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A trained student, its scores, fused logits of all images, and logits of two crops."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    run_train(folder, folder, settings(train__epochs=1))
    predict.run(
        folder / "images.parquet", folder / "adapter.safetensors", folder / "scores.zarr", "cpu", 4, 0, backbone
    )
    with new_group(folder / "logits.zarr", logit_specs(TRAIN + TEST, 3, 2, 5), {"pass": [0, 1]}) as group:
        group["zero_shot"][...], group["crops"][...] = 0, 0
    return folder


def run(folder, out, chosen=None, fused=None):
    given = (
        folder / "images.parquet",
        folder / "adapter.safetensors",
        out / "ensemble.zarr" / "zarr.json",
        chosen or {"fuse": {}},
    )
    zarrs = (folder / "scores.zarr", fused or folder / "fused.zarr", folder / "logits.zarr")
    stage.run(*given, *zarrs, "cpu", 4, 0, build=backbone)
    return read(array_of(open_group(out / "ensemble.zarr"), "z"))


def test_golden(world, tmp_path):
    """Raise the stage's version in plan.py when these numbers change."""
    assert STAGES["ensemble"].version == 2
    assert run(world, tmp_path).ravel().tolist() == pytest.approx(GOLDEN, abs=1e-3)


GOLDEN = [-0.27795, 0.14244, -0.76993, -0.28072, 0.14105, -0.7716, -0.27816, 0.13494, -0.77226]


def test_held_out_images_are_set_against_the_training_images(world, tmp_path):
    z = run(world, tmp_path)
    images = read_manifest(world / "images.parquet")
    held_out, trained = (list(images.loc[images["split"] == split, "id"]) for split in ("test", "train"))
    student, teacher = (
        StagePredictions("student", world / "scores.zarr"),
        StagePredictions("fused", world / "fused.zarr"),
    )
    table = pd.read_csv(tmp_path / "ensemble.csv").set_index("class")
    assert list(table.index) == CLASSES
    expected = teacher.read(trained).astype(float)
    assert table["teacher_mean"].to_numpy() == pytest.approx(expected.mean(axis=0))
    assert table["teacher_std"].to_numpy() == pytest.approx(expected.std(axis=0))
    stats = [ScoreStats(table[f"{m}_mean"].to_numpy(), table[f"{m}_std"].to_numpy()) for m in ("student", "teacher")]
    assert z == pytest.approx(ensemble(student.read(held_out), teacher.read(held_out), *stats))


def test_the_cost_is_told(world, tmp_path, caplog):
    caplog.set_level("INFO")
    run(world, tmp_path)
    assert "ensemble: 3 views of the teacher and one view of the student per image" in caplog.text
    record = json.loads((tmp_path / "ensemble.json").read_text())
    assert set(record["outputs"]) == {"ensemble.zarr", "ensemble.csv"}
    assert record["facts"]["views_of_teacher_per_image"] == 3 and record["facts"]["reference_images"] == TRAIN
    for passes in (0, 1):
        run(world, tmp_path, {"fuse": {"passes": passes}})
        facts = json.loads((tmp_path / "ensemble.json").read_text())["facts"]
        assert facts["views_of_teacher_per_image"] == passes + 1


def test_images_that_the_teacher_did_not_see_are_refused(world, tmp_path):
    ids = list(read_manifest(world / "images.parquet")["id"])
    z = read(array_of(open_group(world / "fused.zarr"), "z")).copy()
    z[1] = np.nan
    write_zarr(tmp_path / "fused.zarr", ids, CLASSES, z=z)
    with pytest.raises(UserError, match=r"predict\.ensemble: the teacher lacks scores of some held-out images"):
        run(world, tmp_path, fused=tmp_path / "fused.zarr")
    assert not (tmp_path / "ensemble.zarr").exists()


def test_an_ensemble_needs_a_student():
    with pytest.raises(UserError, match=r"predict\.ensemble: needs a student"):
        load({"classes": ["a", "b"], "student": {"kind": "none"}, "predict": {"ensemble": "teacher"}})
