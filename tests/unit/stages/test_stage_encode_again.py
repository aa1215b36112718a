"""Added, removed, renamed and reordered images: only new ones pass the teacher, and every bit is as in a full run."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from manifests import make_manifest_of
from PIL import Image
from tiny_models import checkpoint

import cutsew.stages.tagclip as tagging
from cutsew.data.images import read_image
from cutsew.errors import UserError
from cutsew.models import view_embedding
from cutsew.pipeline.plan import DEFAULT, Plan
from cutsew.runtime import device
from cutsew.stages.encode import encode
from cutsew.stages.seal import seal
from cutsew.stages.seal_tagclip import seal_tagclip
from cutsew.stages.tagclip import tagclip
from cutsew.stages.text import text
from cutsew.storage.chunk_cache import ENTRY
from cutsew.storage.zarr_layout import folder_of

RANDOM = {"layout": "random", "passes": 3, "passes_per_job": 2, "seed": 9}
LAYOUTS = {
    "random": RANDOM,
    "spread": {**RANDOM, "layout": "spread"},
    "none": {**RANDOM, "passes": 0},
    "tiles": {"layout": "tiles", "tiles": [{"grid": 2}, {"grid": 1, "side": 32}], "passes_per_job": 3},
    "windows": {"layout": "windows", "windows": {"scale": 2, "share": 0.5, "per_side": 2}},
    "windows, whole of the grid": {
        "layout": "windows",
        "windows": {"scale": 2, "share": 0.5, "per_side": 2, "whole": "grid"},
    },
}
BEFORE, AFTER = [0, 1, 2, 3, 4, 5, 6], [9, 6, 4, 5, 8, 8, 0]
"""Images by number, in shards of 3 and then of 2: 1, 2 and 3 are gone, 8 (twice) and 9 are new, others have moved."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(10):
        noise = np.random.default_rng(i).integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.bmp")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return {name: checkpoint(tmp_path_factory.mktemp(name), name)[0] for name in ("test-resnet", "test-vit")}


@pytest.fixture
def decoded(monkeypatch):
    result = []
    for stage in (view_embedding, tagging):
        monkeypatch.setattr(stage, "read_image", partial(noted, result))
    return result


def noted(result, path, **options):
    result.append(int(Path(path).stem))
    return read_image(path, **options)


def write(folder, images, numbers, shard_size):
    paths = [images / f"{i}.bmp" for i in numbers]
    manifest = folder / "images.parquet"
    names = [f"{row}-{i}" for row, i in enumerate(numbers)]
    return manifest, make_manifest_of(manifest, paths, ["train"] * len(paths), shard_size, names)


def run(folder, images, numbers, weights, cut=RANDOM, shard_size=3, workers=0, **teacher):
    """Run all encoding jobs as the workflow does, which deletes their outputs first; return the bytes of all files."""
    manifest, rows = write(folder, images, numbers, shard_size)
    raw = {
        "classes": ["cat", "dog"],
        "dataset": {"kind": "folder", "root": "images", "shard_size": shard_size},
        "teacher": {"open_clip": {"model": "test-resnet", "pretrained": str(weights)}, **teacher},
        "cut": cut,
    }
    plan, group = Plan(raw), folder / "views.zarr"
    chosen = plan.runs[DEFAULT].cut
    for path in group.glob("*/c/**/0"):
        if path.is_file():
            path.unlink()
    for shard in sorted(set(rows["shard"])):
        for block in range(chosen.blocks):
            passes = len(chosen.passes_of(block))
            options = {"device": "cpu", "workers": workers}
            encode(manifest, group, plan.settings(DEFAULT, "encode"), int(shard), block, passes, **options)
    seal(manifest, group, plan.settings(DEFAULT, "seal"))
    return contents(group)


def contents(group):
    return {str(path.relative_to(group)): path.read_bytes() for path in folder_of(group).rglob("*") if path.is_file()}


def entries(folder):
    return [json.loads(path.read_text())["images"] for path in folder.glob(f"views.cache/*/*/{ENTRY}")]


@pytest.mark.parametrize("cut", LAYOUTS.values(), ids=LAYOUTS)
def test_only_new_images_are_embedded_and_all_bits_are_those_of_a_full_run(cut, tmp_path, images, weights, decoded):
    path = weights["test-resnet"]
    run(tmp_path / "a", images, BEFORE, path, cut)
    decoded.clear()
    changed = run(tmp_path / "a", images, AFTER, path, cut, shard_size=2)
    blocks = Plan({"classes": ["a", "b"], "cut": cut}).runs[DEFAULT].cut.blocks
    assert sorted(decoded) == sorted([8, 9] * blocks)
    decoded.clear()
    assert changed == run(tmp_path / "b", images, AFTER, path, cut, shard_size=2)
    assert sorted(set(decoded)) == [0, 4, 5, 6, 8, 9]


def test_a_removed_image_embeds_none_and_is_forgotten(tmp_path, images, weights, decoded):
    path = weights["test-resnet"]
    run(tmp_path, images, BEFORE, path)
    disk = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file() and file.stat().st_nlink == 1)
    decoded.clear()
    run(tmp_path, images, BEFORE[1:], path)
    assert decoded == []
    assert sorted(map(len, entries(tmp_path))) == [3, 3, 3, 3]  # two blocks of two shards; none of the shards before
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file.stat().st_nlink == 1]
    assert sum(file.stat().st_size for file in files) <= disk  # no chunk file lies in the cache alone
    run(tmp_path, images, BEFORE, path)
    assert decoded == [0, 0]


@pytest.mark.parametrize(
    ("edit", "says"),
    [(lambda file: file.write_bytes(file.with_stem("9").read_bytes()), "changed after"), (Path.unlink, "is not now")],
)
def test_an_image_that_changed_after_it_was_listed_is_not_embedded(edit, says, tmp_path, images, weights):
    """Otherwise its embedding would be found later by the digest of what it was."""
    other = shutil.copytree(images, tmp_path / "images")
    manifest, _ = write(tmp_path, other, BEFORE, 3)
    edit(other / "4.bmp")
    settings = Plan(
        {
            "classes": ["cat", "dog"],
            "dataset": {"kind": "folder", "root": "images", "shard_size": 3},
            "teacher": {"open_clip": {"model": "test-resnet", "pretrained": str(weights["test-resnet"])}},
            "cut": RANDOM,
        }
    ).settings(DEFAULT, "encode")
    with pytest.raises(UserError, match=f"4.bmp: .*{says}.*; run the workflow again"):
        encode(manifest, tmp_path / "views.zarr", settings, 1, 0, 2, device="cpu")
    assert entries(tmp_path) == []


CHANGES = {
    "seed": {"cut": {**RANDOM, "seed": 10}},
    "passes per job": {"cut": {**RANDOM, "passes_per_job": 3}},
    "precision": {"precision": "bfloat16"},
    "image size": {"open_clip": {"model": "test-resnet", "image_size": 32}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_settings_reuse_nothing(change, tmp_path, images, weights, decoded):
    path = weights["test-resnet"]
    if "open_clip" in change:
        change = {"open_clip": {**change["open_clip"], "pretrained": str(path)}}
    run(tmp_path, images, [0, 1, 2], path)
    decoded.clear()
    run(tmp_path, images, [0, 1, 2], path, **change)
    assert set(decoded) == {0, 1, 2}


def test_other_weights_or_packages_reuse_nothing(tmp_path, images, weights, decoded, monkeypatch):
    run(tmp_path, images, [0, 1], weights["test-resnet"])
    decoded.clear()
    (tmp_path / "other").mkdir()
    other, _ = checkpoint(tmp_path / "other", "test-resnet", seed=1)
    run(tmp_path, images, [0, 1], other)
    assert set(decoded) == {0, 1}
    decoded.clear()
    run(tmp_path, images, [0, 1], other)
    assert decoded == []
    monkeypatch.setattr(device, "package_version", lambda _: "0")
    run(tmp_path, images, [0, 1], other)
    assert set(decoded) == {0, 1}


def test_fewer_passes_are_not_taken_for_all_of_a_block(tmp_path, images, weights, decoded):
    path = weights["test-resnet"]
    run(tmp_path / "a", images, [0, 1], path)
    decoded.clear()
    more = run(tmp_path / "a", images, [0, 1], path, {**RANDOM, "passes": 4})
    assert decoded == [0, 1]  # the second block, which had one pass
    assert more == run(tmp_path / "b", images, [0, 1], path, {**RANDOM, "passes": 4})


def _cut_short(entry):
    path = entry / "crops" if (entry / "crops").exists() else entry / "global"
    path.write_bytes(path.read_bytes()[:-9])  # of the link alone: the workflow has deleted the chunk file


DAMAGE = {
    "a chunk file is gone": lambda entry: (entry / "boxes").unlink(),
    "a chunk file is cut short": _cut_short,
    "a byte is flipped": lambda entry: (entry / "boxes").write_bytes(b"\0" + (entry / "boxes").read_bytes()[1:]),
    "no JSON": lambda entry: (entry / ENTRY).write_text('{"images": ['),
    "a list": lambda entry: (entry / ENTRY).write_text("[]"),
    "images in another order": lambda entry: (entry / ENTRY).write_text(
        json.dumps({**(content := json.loads((entry / ENTRY).read_text())), "images": content["images"][::-1]})
    ),
    "other chunks": lambda entry: (entry / ENTRY).write_text((entry / ENTRY).read_text().replace("[2, 3, ", "[2, 2, ")),
    "no entry": lambda entry: (entry / ENTRY).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_entries_are_recomputed(damage, tmp_path, images, weights, decoded, caplog):
    path = weights["test-resnet"]
    whole = run(tmp_path, images, [0, 1, 2], path)
    for file in (tmp_path / "views.zarr").glob("*/c/**/0"):
        if file.is_file():
            file.unlink()
    for entry in list((tmp_path / "views.cache").glob("*/*")):
        damage(entry)
    decoded.clear()
    assert run(tmp_path, images, [0, 1, 2], path) == whole
    assert sorted(decoded) == [0, 0, 1, 1, 2, 2]
    assert ("its images are recomputed" in caplog.text) == (damage is not DAMAGE["no entry"])
    decoded.clear()
    assert run(tmp_path, images, [0, 1, 2], path) == whole and decoded == []


def test_without_hard_links_nothing_is_reused(tmp_path, images, weights, decoded, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    path = weights["test-resnet"]
    whole = run(tmp_path, images, [0, 1], path)
    assert run(tmp_path, images, [0, 1], path) == whole
    assert decoded == [0, 1] * 4 and entries(tmp_path) == []


def test_tagclip_scores_new_images_alone(tmp_path, images, weights, decoded):
    raw = {
        "classes": ["cat", "dog"],
        "dataset": {"kind": "folder", "root": "images", "shard_size": 3},
        "teacher": {"open_clip": {"model": "test-vit", "pretrained": str(weights["test-vit"]), "image_size": None}},
        "score": {"rule": "tagclip", "tagclip": {"patches": 20, "blocks": 1, "votes": 1, "background": ["sky"]}},
        "student": {"kind": "none"},
    }

    def tag(folder, numbers, shard_size):
        plan = Plan({**raw, "dataset": {**raw["dataset"], "shard_size": shard_size}})
        manifest, rows = write(folder, images, numbers, shard_size)
        text(folder / "text.zarr", plan.settings(DEFAULT, "text"))
        for shard in sorted(set(rows["shard"])):
            settings = plan.settings(DEFAULT, "tagclip")
            tagclip(manifest, folder / "text.zarr", folder / "tagclip.zarr", settings, int(shard), device="cpu")
        settings = plan.settings(DEFAULT, "seal_tagclip")
        seal_tagclip(manifest, folder / "text.zarr", folder / "tagclip.zarr", settings)
        return contents(folder / "tagclip.zarr")

    tag(tmp_path / "a", BEFORE, 3)
    decoded.clear()
    changed = tag(tmp_path / "a", AFTER, 2)
    assert sorted(decoded) == [8, 9]
    assert changed == tag(tmp_path / "b", AFTER, 2)
