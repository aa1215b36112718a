import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray
from sklearn.metrics import average_precision_score

from cutsew.errors import UserError
from cutsew.method.fuse import fuse, fuse_soft
from cutsew.method.soften import rescale_temperature
from cutsew.stages.fuse import fuse as fuse_stage
from cutsew.stages.import_scores import import_scores
from cutsew.storage.manifest import write_manifest
from cutsew.storage.predictions import StagePredictions

SHARED = Path(__file__).parents[4] / "shared" / "voc2012_rn50x64_scores.npz"


def write_images(path, ids, shard_size=2, held_out=()):
    table = pd.DataFrame({"id": ids, "path": "", "width": 0, "height": 0, "bytes": 0, "digest": ids, "split": "train"})
    table.loc[table["id"].isin(held_out), "split"] = "test"
    write_manifest(path, table.assign(shard=table.index // shard_size))


def settings(path, classes, epsilon=1e-6, **scores):
    return {"classes": classes, "teacher": {"scores": {"file": str(path), **scores}}, "score": {"epsilon": epsilon}}


def test_golden(tmp_path):
    """1/2, 3/4, 0 and 1 become 0, log 3, -log 99 and log 99 at epsilon 0.01; classes and images are reordered."""
    whole = np.array([[0.5, 0.75], [0.0, 1.0], [0.25, 0.5]])
    crops = np.stack([1 - whole, whole])
    np.savez(tmp_path / "s.npz", ids=["c", "a", "b"], classes=["cat", "dog"], zero_shot=whole, crops=crops)
    write_images(tmp_path / "images.parquet", ["a", "b", "c"])
    reported = settings(tmp_path / "s.npz", ["dog", "cat"], epsilon=0.01)
    import_scores(tmp_path / "images.parquet", tmp_path / "logits.zarr", reported)

    result = xarray.open_zarr(tmp_path / "logits.zarr", consolidated=False)
    three, most = np.log(3), np.log(99)
    expected = np.array([[most, -most], [0, -three], [three, 0]])
    assert result["zero_shot"].dims == ("image", "class")
    assert result["crops"].dims == ("pass", "image", "class")
    assert result["image"].values.tolist() == ["a", "b", "c"]
    assert result["class"].values.tolist() == ["dog", "cat"]
    assert result["zero_shot"].dtype == np.float32
    np.testing.assert_allclose(result["zero_shot"], expected, atol=1e-6)
    np.testing.assert_allclose(result["crops"], np.stack([-expected, expected]), atol=1e-6)
    assert tmp_path.joinpath("logits.json").is_file()


def test_logits_are_clamped(tmp_path):
    np.savez(tmp_path / "s.npz", ids=["a"], classes=["cat", "dog"], zero_shot=[[-50.0, 1.5]])
    write_images(tmp_path / "images.parquet", ["a"])
    reported = settings(tmp_path / "s.npz", ["cat", "dog"], epsilon=0.01, values="logits", crops=[])
    import_scores(tmp_path / "images.parquet", tmp_path / "logits.zarr", reported)
    result = xarray.open_zarr(tmp_path / "logits.zarr", consolidated=False)
    np.testing.assert_allclose(result["zero_shot"], [[-np.log(99), 1.5]], atol=1e-6)
    assert result["crops"].shape == (0, 1, 2)


@pytest.mark.parametrize(("classes", "activation"), [(["cat"], "auto"), (["cat", "dog"], "sigmoid")])
def test_logits_of_a_sigmoid_are_taken_as_they_are(tmp_path, classes, activation):
    z = np.array([[-50.0, 1.5], [-40.0, 20.0]], np.float32)[:, : len(classes)]
    np.savez(tmp_path / "s.npz", ids=["a", "b"], classes=classes, zero_shot=z)
    write_images(tmp_path / "images.parquet", ["a", "b"])
    reported = settings(tmp_path / "s.npz", classes, values="logits", crops=[])
    reported["score"]["activation"] = activation
    import_scores(tmp_path / "images.parquet", tmp_path / "logits.zarr", reported)
    result = xarray.open_zarr(tmp_path / "logits.zarr", consolidated=False)
    assert np.array_equal(result["zero_shot"], z) and result.attrs["activation"] == "sigmoid"


def test_images_without_scores(tmp_path):
    np.savez(tmp_path / "s.npz", ids=["a"], classes=["cat", "dog"], zero_shot=[[0.1, 0.2]])
    write_images(tmp_path / "images.parquet", ["a", "b", "c", "d", "e"])
    result = settings(tmp_path / "s.npz", ["cat", "dog"], crops=[])
    with pytest.raises(
        UserError, match=r"has no scores of 4 of 5 images \(b, c, d, \.\.\.\); set teacher\.scores\.missing"
    ):
        import_scores(tmp_path / "images.parquet", tmp_path / "logits.zarr", result)
    assert not tmp_path.joinpath("logits.zarr").exists()


def test_held_out_images_may_lack_scores(tmp_path):
    np.savez(tmp_path / "s.npz", ids=["a", "b"], classes=["cat", "dog"], zero_shot=[[0.1, 0.2], [0.3, 0.4]])
    write_images(tmp_path / "images.parquet", ["a", "b", "c"], held_out=["b", "c"])
    import_scores(
        tmp_path / "images.parquet", tmp_path / "logits.zarr", settings(tmp_path / "s.npz", ["cat", "dog"], crops=[])
    )
    outcome = StagePredictions("zero_shot", tmp_path / "logits.zarr")
    assert outcome.covers(["a", "b"]) and not outcome.covers(["b", "c"])
    assert np.isnan(outcome.read(["c"])).all()


@pytest.mark.parametrize("rule", [{"rule": "soft", "soften": "auto"}, {"rule": "standard"}])
def test_images_without_scores_do_not_change_what_is_found_from_all(tmp_path, rule):
    """They were NaN in the mean over all images, and `soften: auto` then always ended at its lower bound."""
    whole, crop = np.random.default_rng(0).dirichlet([0.5] * 4, (2, 8))
    np.savez(tmp_path / "s.npz", ids=list("abcdefgh"), classes=list("wxyz"), zero_shot=whole, crops=crop[None])
    result = settings(tmp_path / "s.npz", list("wxyz"))
    facts = []
    for name, ids in (("all", "abcdefgh"), ("more", "abcdefghij")):
        write_images(tmp_path / f"{name}.parquet", list(ids), held_out=("i", "j"))
        import_scores(tmp_path / f"{name}.parquet", tmp_path / f"{name}.zarr", result)
        fuse_stage(tmp_path / f"{name}.zarr", tmp_path / f"{name}-fused.zarr", {"fuse": rule, "score": result["score"]})
        facts.append(json.loads((tmp_path / f"{name}-fused.json").read_text())["facts"])
    assert facts[0] == facts[1]
    z = xarray.open_zarr(tmp_path / "more-fused.zarr", consolidated=False)["z"].values
    assert np.isfinite(z[:8]).all() and np.isnan(z[8:]).all()


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_file(), reason="the trial scores are absent")
def test_published_scores(tmp_path):
    """Real RN50x64 scores of 5,640 images: 84.86 mAP; fused 87.80, 87.78, 87.66, 87.43 at four alphas; soft 88.80."""
    with np.load(SHARED) as file:
        ids, classes, labels = file["ids"].tolist(), file["classes"].tolist(), file["labels"]
    write_images(tmp_path / "images.parquet", ids, shard_size=4096)
    reported = settings(SHARED, classes, crops=["best_tile"])
    import_scores(tmp_path / "images.parquet", tmp_path / "logits.zarr", reported)
    result = xarray.open_zarr(tmp_path / "logits.zarr", consolidated=False)
    zero_shot, crops = result["zero_shot"].values, result["crops"].values
    assert 100 * average_precision_score(labels, zero_shot) == pytest.approx(84.86, abs=0.005)
    for alpha, expected in ((0, 87.80), (0.1, 87.78), (0.5, 87.66), (1, 87.43)):
        fused, _ = fuse(zero_shot, crops, alpha, "logit", 1e-6)
        assert 100 * average_precision_score(labels, fused) == pytest.approx(expected, abs=0.005)
    softened = rescale_temperature(zero_shot, 0.5, 1e-6), rescale_temperature(crops, 0.5, 1e-6)
    fused, _ = fuse_soft(*softened, alpha=0.1, tau=0.25, anchor=0.1)
    assert 100 * average_precision_score(labels, fused) == pytest.approx(88.80, abs=0.005)
