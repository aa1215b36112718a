import json
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow.parquet import ParquetFile

from cutsew import cli
from cutsew.config import load
from cutsew.data import accounting, folder
from cutsew.data.folder import walk
from cutsew.data.held_out import in_fraction
from cutsew.data.images import BadImage, inspect
from cutsew.data.listing import list_images, listing_fingerprint, truth_fingerprint
from cutsew.errors import UserError
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.plan import Plan
from cutsew.stages.manifest import manifest
from cutsew.storage.manifest import COLUMNS, read_manifest, write_manifest


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4 + seed % 3, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return path


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(["b.jpg", "a/1.jpg", "a/2.jpg", "c.png", "d.png"]):
        draw(tmp_path / "images" / name, seed)
    return tmp_path / "images"


def settings_of(root, **dataset):
    return {"version": 1, "dataset": {"kind": "folder", "root": str(root), "shard_size": 2, **dataset}}


def make(out, root, workers=0, **dataset):
    manifest(out / "images.parquet", settings=settings_of(root, **dataset), workers=workers)
    return read_manifest(out / "images.parquet")


def voc_world(root, train=("x", "y"), test=("z",)):
    for name, ids in (("train", train), ("val", test)):
        path = root / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(ids) + "\n")
        for image in ids:
            draw(root / "JPEGImages" / f"{image}.jpg", ord(image[0]))
    return root


def test_golden_rows(tmp_path, root):
    table = make(tmp_path / "out", root, test={"folder": "a"})
    assert list(table.columns) == ["row", *COLUMNS]
    assert table["id"].tolist() == ["a/1.jpg", "a/2.jpg", "b.jpg", "c.png", "d.png"]
    assert table["path"].tolist() == [str(root / name) for name in table["id"]]
    assert table["split"].tolist() == ["test", "test", "train", "train", "train"]
    assert table["shard"].tolist() == [0, 0, 1, 1, 2]
    assert table["height"].tolist() == [5, 6, 4, 4, 5]
    assert table["width"].tolist() == [6] * 5
    assert table["digest"].tolist() == [inspect(root / name).digest for name in table["id"]]
    assert table["bytes"].tolist() == [(root / name).stat().st_size for name in table["id"]]


def test_record_shards_and_skipped(tmp_path, root):
    out = tmp_path / "out"
    make(out, root)
    assert (out / "skipped.csv").read_text() == "path,reason\n"
    shards = pd.read_csv(out / "shards.csv", dtype=str)
    assert shards.columns.tolist() == ["shard", "images", "digest", "listed", "placed"]
    assert shards["images"].tolist() == ["2", "2", "1"]
    record = json.loads((out / "images.json").read_text())
    assert record["stage"] == "manifest"
    assert set(record["outputs"]) == {"images.parquet", "shards.csv", "skipped.csv"}
    assert (record["facts"]["train"], record["facts"]["test"]) == (5, 0)


def test_the_stage_reads_what_the_plan_gives_it(tmp_path, root):
    plan = Plan({"classes": ["a", "b"], "dataset": {"kind": "folder", "root": str(root), "test": {"folder": "a"}}})
    manifest(tmp_path / "images.parquet", settings=json.loads(plan.params("default", "manifest")))
    assert read_manifest(tmp_path / "images.parquet", split="test")["id"].tolist() == ["a/1.jpg", "a/2.jpg"]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(tmp_path, root, workers, monkeypatch):
    monkeypatch.setattr(accounting, "BLOCK", 2)
    make(tmp_path / "one", root)
    make(tmp_path / "many", root, workers=workers)
    for name in ("images.parquet", "shards.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_made_again_it_is_the_same_and_shards_stay_untouched(tmp_path, root):
    out = tmp_path / "out"
    make(out, root)
    data, when = (out / "images.parquet").read_bytes(), (out / "shards.csv").stat()
    make(out, root)
    assert (out / "images.parquet").read_bytes() == data
    assert (out / "shards.csv").stat().st_ino == when.st_ino
    assert (out / "shards.csv").stat().st_mtime_ns == when.st_mtime_ns


def test_new_images_come_last_and_leave_full_shards_alone(tmp_path, root):
    before = make(tmp_path / "out", root)
    old = pd.read_csv(tmp_path / "out" / "shards.csv")
    draw(root / "0.jpg", 20)
    draw(root / "a" / "0.jpg", 21)
    after = make(tmp_path / "out", root)
    assert after["id"].tolist() == [*before["id"], "0.jpg", "a/0.jpg"]
    new = pd.read_csv(tmp_path / "out" / "shards.csv")
    assert new["digest"].tolist()[:2] == old["digest"].tolist()[:2]
    assert new["digest"].tolist()[2] != old["digest"].tolist()[2]


def test_removed_images_go_and_the_others_keep_their_order(tmp_path, root):
    draw(root / "e.png", 9)
    make(tmp_path / "out", root)
    (root / "a" / "2.jpg").unlink()
    draw(root / "0.png", 10)
    after = make(tmp_path / "out", root)
    assert after["id"].tolist() == ["a/1.jpg", "b.jpg", "c.png", "d.png", "e.png", "0.png"]
    assert after["shard"].tolist() == [0, 0, 1, 1, 2, 2]


def test_an_edited_image_keeps_its_row_with_its_new_content(tmp_path, root):
    before = make(tmp_path / "out", root)
    draw(root / "b.jpg", 50)
    after = make(tmp_path / "out", root)
    assert after["id"].tolist() == before["id"].tolist()
    assert (after["digest"] != before["digest"]).tolist() == [False, False, True, False, False]


def test_another_split_keeps_rows_and_content_digests_but_not_listed(tmp_path, root):
    before = make(tmp_path / "out", root)
    old = pd.read_csv(tmp_path / "out" / "shards.csv")
    after = make(tmp_path / "out", root, test={"folder": "a"})
    new = pd.read_csv(tmp_path / "out" / "shards.csv")
    assert after["id"].tolist() == before["id"].tolist()
    assert new["digest"].tolist() == old["digest"].tolist()
    assert (new["listed"] != old["listed"]).tolist() == [True, False, False]


unique = st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, max_size=12)


@given(unique, unique)
def test_places_keep_known_ids_in_order_and_lose_none(listed, known):
    order = accounting.stable_order(listed, known)
    assert sorted(order) == list(range(len(listed)))
    ids = [listed[i] for i in order]
    kept = [name for name in known if name in listed]
    assert ids[: len(kept)] == kept
    assert ids[len(kept) :] == [name for name in listed if name not in known]


@given(unique)
def test_places_of_an_unchanged_listing_never_move(listed):
    again = sorted(listed)
    assert [again[i] for i in accounting.stable_order(again, listed)] == listed


def test_a_bad_image_stops_and_names_the_first_in_order(tmp_path, root):
    (root / "d.png").write_bytes(b"")
    (root / "b.jpg").write_bytes(b"no")
    with pytest.raises(
        UserError, match=r"b\.jpg: not an image \(and 1 more bad images\).*on_bad_image: skip"
    ) as caught:
        make(tmp_path / "out", root)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "images.parquet").exists()


def test_a_bad_image_is_skipped_and_listed(tmp_path, root):
    data = (root / "c.png").read_bytes()
    (root / "c.png").write_bytes(data[: len(data) // 2])
    (root / "a" / "1.jpg").write_bytes(b"")
    table = make(tmp_path / "out", root, on_bad_image="skip", workers=2)
    assert table["id"].tolist() == ["a/2.jpg", "b.jpg", "d.png"]
    assert table["shard"].tolist() == [0, 0, 1]
    skipped = pd.read_csv(tmp_path / "out" / "skipped.csv")
    assert skipped["path"].tolist() == [str(root / "a/1.jpg"), str(root / "c.png")]
    assert skipped["reason"].tolist() == ["empty file", "truncated"]


def test_all_images_bad(tmp_path, root):
    for path in root.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"dataset\.root: none of the 5 images can be read"):
        make(tmp_path / "out", root, on_bad_image="skip")


def test_no_images_no_training_images_no_root(tmp_path, root):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"dataset\.root: no images below"):
        make(tmp_path / "out", tmp_path / "empty")
    with pytest.raises(UserError, match=r"dataset\.root: .* is not a folder"):
        make(tmp_path / "out", tmp_path / "none")
    path = tmp_path / "all.txt"
    path.write_text("b.jpg\na/1.jpg\na/2.jpg\nc.png\nd.png\n")
    with pytest.raises(UserError, match=r"dataset\.test: leaves no image"):
        make(tmp_path / "out", root, test={"list": str(path)})


def test_a_broken_earlier_manifest(tmp_path, root):
    out = tmp_path / "out"
    out.mkdir()
    (out / "images.parquet").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"images\.parquet: not a complete parquet table; delete it"):
        make(out, root)


def test_fraction_follows_content_and_new_images_move_none(tmp_path, root):
    for seed in range(30, 50):
        draw(root / f"{seed}.png", seed)
    before = make(tmp_path / "out", root, test={"fraction": 0.4}).set_index("id")
    assert before["split"].tolist() == ["test" if in_fraction(d, 0.4) else "train" for d in before["digest"]]
    assert set(before["split"]) == {"train", "test"}
    for seed in range(50, 60):
        draw(root / f"{seed}.png", seed)
    after = make(tmp_path / "out", root, test={"fraction": 0.4}).set_index("id")
    assert after.loc[before.index, "split"].tolist() == before["split"].tolist()
    fresh = make(tmp_path / "fresh", root, test={"fraction": 0.4}).set_index("id")
    assert fresh.loc[after.index, "split"].tolist() == after["split"].tolist()


def test_twins_across_the_split_are_told(tmp_path, root, caplog):
    (root / "a" / "1.jpg").write_bytes((root / "b.jpg").read_bytes())
    make(tmp_path / "out", root, test={"folder": "a"})
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        "1 of the held-out images are byte for byte among the training images too, a/1.jpg among them"
    ]


def test_voc_lists(tmp_path):
    root = voc_world(tmp_path / "voc", train=("y", "x"))
    table = make(tmp_path / "out", root, kind="voc")
    assert table["id"].tolist() == ["y", "x", "z"]
    assert table["split"].tolist() == ["train", "train", "test"]
    assert table["path"].tolist()[0] == str(root / "JPEGImages" / "y.jpg")
    record = json.loads((tmp_path / "out" / "images.json").read_text())
    assert len(record["inputs"]) == 2
    assert make(tmp_path / "one", root, kind="voc", voc={"test": None})["id"].tolist() == ["y", "x"]


def test_demo_takes_its_folder_from_the_command(tmp_path):
    root = voc_world(tmp_path / "world")
    settings = {"dataset": {"kind": "demo"}}
    manifest(tmp_path / "images.parquet", settings=settings, root=root)
    assert read_manifest(tmp_path / "images.parquet")["id"].tolist() == ["x", "y", "z"]
    with pytest.raises(UserError, match="--root"):
        manifest(tmp_path / "images.parquet", settings=settings)


def test_voc_overlap_and_missing_images(tmp_path):
    root = voc_world(tmp_path / "voc", test=("z", "x"))
    with pytest.raises(
        UserError, match=r"dataset\.voc\.test: lists train and val overlap \(images in both: 1, such as x\)"
    ):
        make(tmp_path / "out", root, kind="voc")
    root = voc_world(tmp_path / "other")
    (root / "JPEGImages" / "y.jpg").unlink()
    with pytest.raises(UserError, match=r"y\.jpg: no such image"):
        make(tmp_path / "out", root, kind="voc")
    table = make(tmp_path / "out", root, kind="voc", on_bad_image="skip")
    assert table["id"].tolist() == ["x", "z"]
    assert pd.read_csv(tmp_path / "out" / "skipped.csv")["reason"].tolist() == ["no such file"]
    with pytest.raises(UserError, match=r"dataset\.voc\.train: .* does not exist"):
        make(tmp_path / "out", root, kind="voc", voc={"train": "trainval"})


@pytest.fixture
def ids_from_scores(monkeypatch):
    import types

    def install(names):
        module = types.ModuleType("cutsew.data.scores")
        module.read_ids = lambda path, settings: names  # noqa: ARG005
        monkeypatch.setitem(sys.modules, "cutsew.data.scores", module)

    return install


def test_ids_without_images(tmp_path, ids_from_scores):
    scores = tmp_path / "scores.npz"
    scores.write_bytes(b"x")
    settings = {"dataset": {"kind": "ids", "shard_size": 2}, "teacher": {"scores": {"file": str(scores)}}}
    ids_from_scores(["q", "p", "r"])
    manifest(tmp_path / "images.parquet", settings=settings)
    table = read_manifest(tmp_path / "images.parquet")
    assert table["id"].tolist() == ["q", "p", "r"]
    assert table["path"].tolist() == [""] * 3
    assert table["split"].tolist() == ["train"] * 3
    assert table["shard"].tolist() == [0, 0, 1]
    assert table["digest"].nunique() == 3
    ids_from_scores(["p", "n", "q"])
    manifest(tmp_path / "images.parquet", settings=settings)
    assert read_manifest(tmp_path / "images.parquet")["id"].tolist() == ["q", "p", "n"]


def test_images_without_scores_are_dropped_where_that_is_asked(tmp_path, root, caplog):
    scores = tmp_path / "scores.npz"
    ids = np.array(["d.png", "a/1.jpg", "elsewhere"])
    np.savez(scores, ids=ids, classes=np.array(["x", "y"]), zero_shot=np.full((3, 2), 0.5), crops=np.full((3, 2), 0.5))
    settings = {**settings_of(root), "teacher": {"scores": {"file": str(scores), "missing": "drop"}}}
    manifest(tmp_path / "images.parquet", settings=settings)
    assert read_manifest(tmp_path / "images.parquet")["id"].tolist() == ["a/1.jpg", "d.png"]
    assert "3 of 5 images have no scores and are dropped" in caplog.messages
    settings["teacher"]["scores"]["missing"] = "error"
    manifest(tmp_path / "images.parquet", settings=settings)
    assert len(read_manifest(tmp_path / "images.parquet")) == 5


def test_inspect_all_gives_errors_in_their_places(tmp_path, root):
    result = list(accounting.inspect_all([str(root / "b.jpg"), str(tmp_path / "none"), str(root / "c.png")], 2))
    assert [isinstance(x, BadImage) for x in result] == [False, True, False]


def test_command_line_ends_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "p").mkdir()
    words = ["cutsew", "manifest", str(tmp_path / "o.parquet"), "--settings", json.dumps(settings_of(tmp_path / "p"))]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("cutsew: dataset.root: no images below")


def config_of(**dataset):
    return load({"classes": ["a", "b"], "dataset": dataset})


def test_fingerprint_notices_new_removed_and_edited_images(root, tmp_path):
    config = config_of(kind="folder", root=str(root))
    seen = [listing_fingerprint(config)]
    assert listing_fingerprint(config) == seen[0]
    draw(root / "new.jpg", 1)
    seen.append(listing_fingerprint(config))
    (root / "new.jpg").rename(root / "renamed.jpg")
    seen.append(listing_fingerprint(config))
    (root / "renamed.jpg").unlink()
    (root / "b.jpg").write_bytes(b"other")
    seen.append(listing_fingerprint(config))
    (root / "notes.txt").write_text("not an image")
    assert listing_fingerprint(config) == seen[-1]
    assert len(set(seen)) == len(seen)
    path = tmp_path / "test.txt"
    path.write_text("b.jpg")
    listed = config_of(kind="folder", root=str(root), test={"list": str(path)})
    first = listing_fingerprint(listed)
    path.write_text("c.png")
    assert listing_fingerprint(listed) != first


def test_the_check_and_the_fingerprint_walk_the_folder_once(tmp_path, monkeypatch):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"1")
    config = load({"classes": ["cat"], "dataset": {"kind": "folder", "root": str(tmp_path)}})
    alone = listing_fingerprint(config)
    walks = []
    monkeypatch.setattr(folder, "walk", lambda *words, **more: walks.append(words) or walk(*words, **more))
    list_images(config.dataset)
    assert listing_fingerprint(config) == alone and len(walks) == 1
    (tmp_path / "new.jpg").write_bytes(b"1")
    assert listing_fingerprint(config) != alone and len(walks) == 2  # what was found is used once


def test_fingerprint_of_voc_counts_listed_images_only(tmp_path):
    root = voc_world(tmp_path / "voc")
    config = config_of(kind="voc", root=str(root))
    first = listing_fingerprint(config)
    draw(root / "JPEGImages" / "unlisted.jpg", 1)
    (root / "Annotations").mkdir()
    truth = truth_fingerprint(config)
    (root / "Annotations" / "x.xml").write_text("<annotation/>")
    assert listing_fingerprint(config) == first
    assert truth_fingerprint(config) != truth
    draw(root / "JPEGImages" / "x.jpg", 3)
    second = listing_fingerprint(config)
    voc_world(root, train=("x",), test=("y", "z"))
    assert len({first, second, listing_fingerprint(config)}) == 3


def test_fingerprint_counts_scores_where_they_decide(root, tmp_path):
    scores = tmp_path / "s.npz"

    def fingerprint(kind, missing):
        teacher = {"kind": "scores", "scores": {"file": str(scores), "missing": missing}}
        dataset = {"kind": kind} | ({"root": str(root)} if kind == "folder" else {})
        raw = {"classes": ["a", "b"], "dataset": dataset, "teacher": teacher, "student": {"kind": "none"}}
        return listing_fingerprint(load(raw))

    cases = [("ids", "error"), ("folder", "drop"), ("folder", "error")]
    scores.write_bytes(b"x")
    before = [fingerprint(*case) for case in cases]
    scores.write_bytes(b"xyz")
    changed = [new != old for new, old in zip([fingerprint(*case) for case in cases], before, strict=True)]
    assert changed == [True, True, False]


def test_stage_version_is_two():
    # Raise the version in cutsew.pipeline.graph when the golden rows above change.
    assert STAGES["manifest"].version == 2


def test_a_shard_is_read_without_the_rows_of_the_others(tmp_path):
    path = tmp_path / "images.parquet"
    ids = [f"{i}.jpg" for i in range(10)]
    table = pd.DataFrame({"id": ids, "path": ids, "width": 8, "height": 6, "bytes": 9, "digest": ids, "split": "train"})
    write_manifest(path, table.assign(shard=table.index // 3))
    whole = read_manifest(path)
    for shard in range(5):  # there are four
        expected = whole[whole["shard"] == shard].reset_index(drop=True)
        pd.testing.assert_frame_equal(read_manifest(path, shard=shard), expected, check_index_type=False)
    with ParquetFile(path) as file:
        group = file.metadata.row_group(1)
        columns = [group.column(place) for place in range(group.num_columns)]
    data = bytearray(path.read_bytes())
    start = columns[0].dictionary_page_offset or columns[0].data_page_offset
    size = sum(column.total_compressed_size for column in columns)
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    assert read_manifest(path, shard=2)["row"].tolist() == [6, 7, 8]
    with pytest.raises(UserError, match="not a complete parquet table"):
        read_manifest(path, shard=1)
