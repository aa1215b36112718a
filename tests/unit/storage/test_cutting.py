"""Stages encode, seal, score, fuse, correct and select on a handful of images with the demo's tiny CLIP."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray
from manifests import make_manifest_of
from PIL import Image

from cutsew.config import Config
from cutsew.config.loading import DEFAULT
from cutsew.errors import UserError
from cutsew.pipeline.plan import Plan
from cutsew.stages.correct import correct
from cutsew.stages.encode import encode
from cutsew.stages.fuse import fuse
from cutsew.stages.score import score
from cutsew.stages.seal import seal
from cutsew.stages.select import select
from cutsew.stages.text import text
from cutsew.storage.manifest import shard_digests
from cutsew.storage.zarr_layout import BOXES, CROPS, GLOBAL
from cutsew.storage.zarr_reader import array_of, open_group, read

N, M = 10, 3
RAW = {
    "classes": ["cat", "dog", "bus"],
    "teacher": {"open_clip": {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 96}},
    "cut": {"passes": M, "passes_per_job": 2},
    "select": {"top_k": 2},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(N):
        noise = np.random.default_rng(i).integers(0, 256, (12, 15, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((150 + 10 * i, 120), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def settings(stage, **changes):
    return Plan({**RAW, **changes}).settings(DEFAULT, stage)


def run_cutting(folder, images, shard_size=4, workers=0, batch_size=32):
    dataset = {"shard_size": shard_size}
    manifest, views = folder / "images.parquet", folder / "views.zarr"
    image_rows = make_manifest_of(manifest, [images / f"{i}.png" for i in range(N)], ["train"] * N, shard_size)
    options = {"settings": settings("encode", dataset=dataset), "batch_size": batch_size, "workers": workers}
    for shard in shard_digests(image_rows):
        for block, passes in ((0, 2), (1, 1)):
            encode(manifest, views, shard=shard, block=block, passes=passes, **options)
    seal(manifest, views, settings("seal", dataset=dataset))
    text(folder / "text.zarr", settings("text"))
    score(views, folder / "text.zarr", folder / "logits.zarr", settings("score"), threads=1 + workers)
    return open_group(views), open_group(folder / "logits.zarr")


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("run")
    run_cutting(folder, images)
    fuse(folder / "logits.zarr", folder / "fused.zarr", settings("fuse"))
    correct(folder / "fused.zarr", folder / "pseudo.zarr", settings("correct"))
    select(folder / "images.parquet", folder / "logits.zarr", folder / "patches.parquet", settings("select"))
    return folder


def everything(group, names):
    return {name: read(array_of(group, name)) for name in names}


@pytest.mark.parametrize(("shard_size", "workers", "batch_size"), [(7, 1, 1), (64, 2, 32), (64, 0, 5)])
def test_results_do_not_depend_on_how_the_work_is_cut(run, tmp_path, images, shard_size, workers, batch_size):
    views, logits = run_cutting(tmp_path, images, shard_size, workers, batch_size)
    plain_views, plain_logits = open_group(run / "views.zarr"), open_group(run / "logits.zarr")
    assert np.array_equal(read(array_of(views, BOXES)), read(array_of(plain_views, BOXES)))
    for own_values, others, names in (
        (views, plain_views, (GLOBAL, CROPS)),
        (logits, plain_logits, ("zero_shot", "crops")),
    ):
        for name in names:
            assert np.array_equal(*(read(array_of(group, name)) for group in (own_values, others)))


def test_stages_agree_with_their_formulas(run):
    scored, fused, pseudo = (open_group(run / f"{name}.zarr") for name in ("logits", "fused", "pseudo"))
    zero_shot, crops = read(array_of(scored, "zero_shot")), read(array_of(scored, "crops"))
    z, winner = read(array_of(fused, "z")), read(array_of(fused, "winner"))
    assert np.array_equal(z, np.maximum(zero_shot, (crops - np.float32(0.1)).max(axis=0)))
    for (i, c), k in np.ndenumerate(winner):
        assert z[i, c] == (zero_shot[i, c] if k == -1 else crops[k, i, c] - np.float32(0.1))
    lifted, touched = read(array_of(pseudo, "z")), read(array_of(pseudo, "corrected"))
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    assert (touched.sum(axis=1) == 1).all() and np.array_equal(touched.argmax(axis=1), z.argmax(axis=1))
    assert 1 / (1 + np.exp(-lifted[touched].astype(np.float64))) == pytest.approx(np.sqrt(p[touched]), abs=1e-6)
    patches = pd.read_parquet(run / "patches.parquet")
    best = patches[(patches["class"] == "dog") & (patches["rank"] == 0)].iloc[0]
    assert best["row"] == zero_shot[:, 1].argmax() and best["image"] == str(best["row"])


def test_other_rules_of_fusion_agree_with_their_formulas(run, tmp_path):
    scored = open_group(run / "logits.zarr")
    views = [read(array_of(scored, name)).astype(np.float64) for name in ("zero_shot", "crops")]
    whole, crops = (1 / (1 + np.exp(-z)) for z in views)
    shown = np.where(crops.max(axis=0) >= 0.3, crops.max(axis=0), crops.min(axis=0))
    expected = {"mean": np.concatenate([whole[None], crops]).mean(axis=0), "cdul": (whole + shown) / 2}
    for rule, p in expected.items():
        chosen = {"rule": rule} | ({"zeta": 0.3} if rule == "cdul" else {})
        fuse(run / "logits.zarr", tmp_path / f"{rule}.zarr", settings("fuse", fuse=chosen))
        z = read(array_of(open_group(tmp_path / f"{rule}.zarr"), "z"))
        assert 1 / (1 + np.exp(-z.astype(np.float64))) == pytest.approx(p, abs=2e-6)


def test_standardized_views_agree_with_their_formula(run, tmp_path):
    result = settings("fuse", fuse={"rule": "standard", "passes": 2})
    fuse(run / "logits.zarr", tmp_path / "fused.zarr", result)
    scored, fused = open_group(run / "logits.zarr"), open_group(tmp_path / "fused.zarr")
    views = np.concatenate([read(array_of(scored, "zero_shot"))[None], read(array_of(scored, "crops"))[:2]])
    x = -np.log1p(np.exp(-views.astype(np.float64)))
    u = (x - x.mean(axis=2, keepdims=True)) / x.std(axis=2, keepdims=True)
    z, winner = read(array_of(fused, "z")), read(array_of(fused, "winner"))
    facts = json.loads((tmp_path / "fused.json").read_text())["facts"]
    assert z == pytest.approx(u[0] + u[1:].max(axis=0) - facts["shift"], abs=1e-5)
    assert np.array_equal(winner, u[1:].argmax(axis=0))
    assert (1 / (1 + np.exp(-z.astype(np.float64)))).sum(axis=1).mean() == pytest.approx(facts["count"], abs=1e-4)


def test_the_released_rules_agree_with_their_formulas(run, tmp_path):
    fuse(run / "logits.zarr", tmp_path / "gated.zarr", settings("fuse", fuse={"rule": "gated", "gate": 0}))
    fuse(run / "logits.zarr", tmp_path / "two.zarr", settings("fuse", fuse={"passes": 2, "alpha": 0}))
    scored = open_group(run / "logits.zarr")
    zero_shot, crops = read(array_of(scored, "zero_shot")), read(array_of(scored, "crops"))
    for name, seen in (("gated", crops), ("two", crops[:2])):
        z = read(array_of(open_group(tmp_path / f"{name}.zarr"), "z"))
        assert np.array_equal(z, np.maximum(zero_shot, seen.max(axis=0)))
    select(run / "images.parquet", run / "pseudo.zarr", tmp_path / "patches.parquet", settings("select"))
    pseudo = read(array_of(open_group(run / "pseudo.zarr"), "z"))
    best = pd.read_parquet(tmp_path / "patches.parquet").query("rank == 0")
    assert list(best["row"]) == list(pseudo.argmax(axis=0)) and np.array_equal(best["score"], pseudo.max(axis=0))


def test_more_passes_than_there_are(run, tmp_path):
    bad = settings("fuse", cut={"passes": 9}, fuse={"passes": 5})
    with pytest.raises(UserError, match=r"fuse\.passes: 5 is more than the 3 passes"):
        fuse(run / "logits.zarr", tmp_path / "fused.zarr", bad)


def test_golden_logits(run):
    zero_shot = read(array_of(open_group(run / "logits.zarr"), "zero_shot"))
    golden = [-1.0549, 0.8729, -3.2768, -0.5908, 0.4996, -3.8339]
    assert zero_shot[:2].ravel().tolist() == pytest.approx(golden, abs=2e-3)


def test_every_group_opens_in_xarray_with_names_and_labels(run):
    for name, arrays in {
        "views": ["global", "crops", "boxes"],
        "text": ["text"],
        "logits": ["zero_shot", "crops"],
        "fused": ["z", "winner"],
        "pseudo": ["z", "corrected"],
    }.items():
        shown = xarray.open_zarr(run / f"{name}.zarr", consolidated=False)
        for array in arrays:
            assert all(not dim.startswith("dim_") for dim in shown[array].dims)
        if name == "text":
            assert shown["class"].values.tolist() == RAW["classes"]
        else:
            assert shown["image"].values.tolist() == [str(i) for i in range(N)]
    views = xarray.open_zarr(run / "views.zarr", consolidated=False)
    assert views["boxes"].sel({"image": "3", "pass": 2, "edge": "right"}).item() <= 180


def test_every_artifact_has_its_record(run):
    for name in ("views", "text", "logits", "fused", "pseudo", "patches"):
        record = json.loads((run / f"{name}.json").read_text())
        assert record["outputs"] and record["stage"] and record["packages"]["zarr"]
    chain = json.loads((run / "pseudo.json").read_text())["inputs"]
    assert chain == {"fused.zarr": open_group(run / "fused.zarr").attrs["digest"]}


def test_more_patches_than_images(run):
    with pytest.raises(UserError, match=r"select\.top_k: 11 is more than the 10 training images"):
        bad = settings("select", select={"top_k": 11})
        select(run / "images.parquet", run / "logits.zarr", run / "other.parquet", bad)


def test_the_settings_of_the_stages_are_those_of_the_model():
    assert set(settings("encode")["cut"]) == set(Config(classes=["a", "b"]).model_dump()["cut"]) - {
        "passes",
        "tiles",
        "windows",
    }
