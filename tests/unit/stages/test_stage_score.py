"""Stage score, and what fuse, correct and targets make of its logits, with numbers worked by hand."""

import math

import numpy as np
import pytest
import xarray

from cutsew.errors import UserError
from cutsew.method.score import sigmoid
from cutsew.stages.correct import correct
from cutsew.stages.fuse import fuse
from cutsew.stages.score import score
from cutsew.storage.text_embeddings import text_spec
from cutsew.storage.zarr_layout import ArraySpec
from cutsew.storage.zarr_writer import write_group

IDS = ["a", "b"]
SCORE = {"score": {"epsilon": 1e-6}}
WHOLE = np.array([[1, 0, 0], [0, 0, 1]], np.float16)
CROPS = np.array([[[0, 1, 0], [0, 0, -1]]], np.float16)
AXES = np.eye(3, dtype=np.float32)


def spec(values, dims):
    return ArraySpec(values.shape, str(values.dtype), dims, values.shape)


def write(folder, classes, scale, arrays, **attributes):
    """Two images with one crop each, whose embeddings lie along the axes; texts as given."""
    views = {
        "global": (spec(WHOLE, ("image", "embedding")), WHOLE),
        "crops": (spec(CROPS, ("pass", "image", "embedding")), CROPS),
    }
    write_group(folder / "views.zarr", views, {"image": IDS, "pass": [0]}, {"weights": "w"})
    dims = {"text": "class", "wordings": "wording", "background": "word"}
    written = {name: (text_spec(values, dims[name]), values) for name, values in arrays.items()}
    write_group(folder / "text.zarr", written, {"class": classes}, {"weights": "w", "logit_scale": scale, **attributes})


def scored(folder):
    score(folder / "views.zarr", folder / "text.zarr", folder / "logits.zarr", SCORE)
    result = xarray.open_zarr(folder / "logits.zarr", consolidated=False)
    return result, result["zero_shot"].values, result["crops"].values


def test_golden_sigmoid(tmp_path):
    """Cosines 0, 1 and -1 at scale 20 and bias -17: logits -17, 3 and -37, none of them clamped."""
    write(tmp_path, ["up"], 20.0, {"text": AXES[2:]}, activation="sigmoid", logit_bias=-17.0)
    result, zero_shot, crops = scored(tmp_path)
    assert zero_shot.tolist() == [[-17.0], [3.0]] and crops.tolist() == [[[-17.0], [-37.0]]]
    assert result.attrs["activation"] == "sigmoid" and result.attrs["background"] == 0

    rule = {"fuse": {"rule": "mean"}} | SCORE
    fuse(tmp_path / "logits.zarr", tmp_path / "fused.zarr", rule)
    mean = xarray.open_zarr(tmp_path / "fused.zarr", consolidated=False)
    of_second = (1 / (1 + math.exp(-3)) + 1 / (1 + math.exp(37))) / 2
    assert mean["z"].values[:, 0] == pytest.approx([-17.0, math.log(of_second / (1 - of_second))], abs=1e-5)
    correct(tmp_path / "fused.zarr", tmp_path / "pseudo.zarr", {"correct": {"rule": "sqrt", "beta": 1}})
    pseudo = xarray.open_zarr(tmp_path / "pseudo.zarr", consolidated=False)
    assert pseudo.attrs["activation"] == mean.attrs["activation"] == "sigmoid"
    assert pseudo["z"].values[0, 0] == pytest.approx(-8.5, abs=1e-3)  # sqrt(exp(-17))


def test_golden_background(tmp_path):
    """Three texts of which one is dropped: exp(1) against exp(0) and exp(0) at scale 1."""
    write(tmp_path, ["x", "y"], 1.0, {"text": AXES[:2], "background": AXES[2:]}, activation="softmax", logit_bias=None)
    result, zero_shot, _ = scored(tmp_path)
    high, low = math.e / (math.e + 2), 1 / (math.e + 2)
    assert sigmoid(zero_shot) == pytest.approx(np.array([[high, low], [low, low]]), abs=1e-6)
    assert result["class"].values.tolist() == ["x", "y"] and result.attrs["background"] == 1

    fuse(
        tmp_path / "logits.zarr",
        tmp_path / "fused.zarr",
        {"fuse": {"rule": "soft", "soften": 2.0, "anchor": 1}} | SCORE,
    )
    z = xarray.open_zarr(tmp_path / "fused.zarr", consolidated=False)["z"].values
    duplicates = math.e**2 / (math.e**2 + 2), 1 / (math.e**2 + 2)  # the same softmax at twice the scale
    assert sigmoid(z) == pytest.approx(np.array([duplicates, (duplicates[1], duplicates[1])]), abs=1e-6)


def test_golden_best_wording(tmp_path):
    """One class is worded along x and along y, the other along z."""
    averaged = np.array([[1, 1, 0], [0, 0, math.sqrt(2)]], np.float32) / math.sqrt(2)
    arrays = {"text": averaged, "wordings": AXES}
    write(tmp_path, ["flat", "up"], 1.0, arrays, activation="softmax", logit_bias=None, wordings=[2, 1])
    _, zero_shot, crops = scored(tmp_path)
    high, low = math.e / (math.e + 1), 1 / (math.e + 1)
    assert sigmoid(zero_shot) == pytest.approx(np.array([[high, low], [low, high]]), abs=1e-6)
    assert sigmoid(crops[0, 0]) == pytest.approx([high, low], abs=1e-6)  # by its other wording


def test_a_softening_that_is_found_needs_a_softmax(tmp_path):
    write(tmp_path, ["up"], 20.0, {"text": AXES[2:]}, activation="sigmoid", logit_bias=-17.0)
    scored(tmp_path)
    with pytest.raises(UserError, match=r"^fuse\.soften: auto looks at each image's likeliest class"):
        fuse(tmp_path / "logits.zarr", tmp_path / "f.zarr", {"fuse": {"rule": "soft", "soften": "auto"}} | SCORE)
    assert not (tmp_path / "f.zarr").exists()


RULES = [
    *({"rule": "max", "space": space, "alpha": alpha} for space in ("logit", "probability") for alpha in (0, 0.1, 0.6)),
    *({"rule": "cdul", "zeta": zeta} for zeta in (0.2, 0.5, 1)),
]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_labels_of_the_extremes_equal_those_of_all_crops_bit_for_bit(tmp_path, activation):
    """Embeddings of 300 images and 6 crops, whose classes tie at the clamp; one image's crops are equal."""
    rng = np.random.default_rng(0)
    seen = {"global": rng.normal(size=(300, 8)), "crops": rng.normal(size=(6, 300, 8))}
    seen["crops"][:, 5] = seen["crops"][0, 5]
    dims = {"global": ("image", "embedding"), "crops": ("pass", "image", "embedding")}
    arrays = {name: values.astype(np.float16) for name, values in seen.items()}
    views = {name: (spec(values, dims[name]), values) for name, values in arrays.items()}
    ids = [f"i{i}" for i in range(300)]
    write_group(tmp_path / "views.zarr", views, {"image": ids, "pass": range(6)}, {"weights": "w"})
    text = rng.normal(size=(5, 8)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    described = {"activation": activation, "logit_bias": -2.0 if activation == "sigmoid" else None}
    shared = {"weights": "w", "logit_scale": 100.0, **described}
    write_group(tmp_path / "text.zarr", {"text": (text_spec(text, "class"), text)}, {"class": list("abcde")}, shared)
    paths = tmp_path / "views.zarr", tmp_path / "text.zarr"
    score(*paths, tmp_path / "all.zarr", SCORE, threads=2)
    for rule in RULES:
        reduced = tmp_path / f"{rule['rule']}.zarr"
        if not reduced.exists():
            settings = {"score": {**SCORE["score"], "keep": "none"}, "fuse": {"rule": rule["rule"]}}
            score(*paths, reduced, settings, threads=2)
            names = set(xarray.open_zarr(reduced, consolidated=False))
            assert "crops" not in names and ("lowest" in names) == (rule["rule"] == "cdul")
        fused = {}
        for logits in (tmp_path / "all.zarr", reduced):
            fuse(logits, tmp_path / "fused.zarr", {"fuse": rule} | SCORE)
            fused[logits.stem] = xarray.open_zarr(tmp_path / "fused.zarr", consolidated=False).load()
        first, second = fused.values()
        assert first.identical(second.assign_attrs(digest=first.attrs["digest"])), rule
        assert first.attrs["digest"] == second.attrs["digest"]
        assert len(np.unique(first["winner"])) > 2
