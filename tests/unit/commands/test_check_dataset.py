"""cutsew check_dataset: a copy is told to be whole, or what it lacks."""

import pytest
import yaml
from benchmark_copies import NUS_CONCEPTS, VOC_CLASSES, make_coco, make_nus, make_voc

from cutsew.commands.check_dataset import check_dataset as check
from cutsew.errors import UserError


def checked(tmp_path, classes, root=None, **dataset):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"classes": list(classes), "dataset": {"root": "elsewhere", **dataset}}))
    check(path, root=root)


@pytest.fixture
def copy(tmp_path):
    make_nus(tmp_path / "nus", NUS_CONCEPTS.split(), train=3, test=2)
    return tmp_path / "nus"


OFFICIAL = {"kind": "nus", "benchmark": "nuswide", "protocol": "common"}


def test_a_reduced_copy_is_let_through_where_it_may_be(tmp_path, copy, capsys):
    checked(tmp_path, NUS_CONCEPTS.split(), copy, **OFFICIAL, allow_incomplete=True)
    stated = capsys.readouterr().out
    assert "train: 3 images, 0 of them are not there" in stated
    assert "this copy of nuswide, protocol common, can be used as it is" in stated


def test_what_is_missing_is_told(tmp_path, copy, capsys):
    missing = copy / "Flickr" / "actor" / "0050_2124494229.jpg"
    missing.unlink()
    with pytest.raises(UserError, match="lists 3 images to label and 2 held-out ones"):
        checked(tmp_path, NUS_CONCEPTS.split(), copy, **OFFICIAL)
    assert f"test: 2 images, 1 of them are not there\n  {missing}\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="1 images are missing; add them, or set dataset.on_bad_image: skip"):
        checked(tmp_path, NUS_CONCEPTS.split(), copy, **OFFICIAL, allow_incomplete=True)
    checked(tmp_path, NUS_CONCEPTS.split(), copy, **OFFICIAL, allow_incomplete=True, on_bad_image="skip")


def test_labels_and_classes_are_looked_at(tmp_path, copy, capsys):
    make_coco(tmp_path / "coco", ["cat", "dog"])
    checked(tmp_path, ["cat", "cow"], tmp_path / "coco", kind="coco")
    assert "no truth for 1 of 2 classes: cow\n" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"names none of the 2 classes, and not horse, cow; .*other names: cat, dog"):
        checked(tmp_path, ["horse", "cow"], tmp_path / "coco", kind="coco")
    with pytest.raises(UserError, match=r"names not all of the 81 classes, and not griffin; "):
        checked(tmp_path, ["griffin", *NUS_CONCEPTS.split()[1:]], copy, **OFFICIAL)
    (copy / "Groundtruth" / "AllLabels" / "Labels_zebra.txt").unlink()
    with pytest.raises(UserError, match=r"Labels_zebra\.txt does not exist"):
        checked(tmp_path, ["cat", "dog"], copy, kind="nus")


def test_other_kinds_and_files_that_are_none(tmp_path):
    make_voc(tmp_path / "voc", {"train": ["a"], "val": ["b"]}, VOC_CLASSES.split())
    checked(tmp_path, VOC_CLASSES.split(), tmp_path / "voc", kind="voc")
    with pytest.raises(UserError, match="only copies of kind voc, coco and nus are checked"):
        checked(tmp_path, ["cat", "dog"], kind="folder")
    (tmp_path / "bad.yaml").write_text("- a list")
    with pytest.raises(UserError, match=r"bad\.yaml: holds a list, not settings"):
        check(tmp_path / "bad.yaml")
