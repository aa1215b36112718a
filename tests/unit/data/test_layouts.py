"""Images and labels of annotated layouts as people keep them: every image has its own id and its own labels."""

import json
from pathlib import Path

import pandas as pd
import pytest
from benchmark_copies import draw_image

from cutsew.config.dataset import CocoDatasetConfig
from cutsew.data.layouts import count_on_disk, images_on_disk
from cutsew.errors import UserError
from cutsew.stages.manifest import manifest
from cutsew.stages.truth import truth

CLASSES = ["cat", "dog"]
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}]
SHARED = Path(__file__).parents[4] / "shared" / "cases"


def coco_list(root, name, images, number=int, folder=None, **changes):
    """Write a list; images: file name -> category ids. The images lie in the folder of the list or in another."""
    entries = [{"id": number(i), "file_name": file} for i, file in enumerate(images, start=1)]
    annotations = [
        {"id": 9, "image_id": number(i), "category_id": c}
        for i, result in enumerate(images.values(), 1)
        for c in result
    ]
    path = root / "annotations" / f"instances_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": entries, "annotations": annotations, "categories": CATEGORIES} | changes))
    for file in images:
        draw_image(root / (name if folder is None else folder) / file.replace("\\", "/"), hash((name, file)) % 2**32)


def nus_lists(root, images):
    """images: split -> image -> the line of its labels."""
    for split, rows in images.items():
        for name, text in {
            f"ImageList/{split}Imagelist.txt": "".join(f"tag\\{image}\r\n" for image in rows),
            "ConceptsList/Concepts81.txt": "cat\ndog\n",
            f"Groundtruth/TrainTestLabels/Labels_cat_{split}.txt": "".join(f"{row[0]}\n" for row in rows.values()),
            f"Groundtruth/TrainTestLabels/Labels_dog_{split}.txt": "".join(f"{row[1]}\n" for row in rows.values()),
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        for i, image in enumerate(rows):
            draw_image(root / "Flickr" / "tag" / image, i + 100 * (split == "Test"))


def listed(tmp_path, root, kind, with_truth=True, **dataset):
    """Run the stages manifest and truth; return id -> file name, split and labels."""
    settings = {"classes": CLASSES, "dataset": {"kind": kind, "root": str(root), **dataset}}
    out = tmp_path / "out"
    manifest(out / "images.parquet", settings=settings)
    images = pd.read_parquet(out / "images.parquet").set_index("id")
    assert all(Path(path).is_file() for path in images["path"])
    truth(out / "images.parquet", out / "truth.parquet", settings=settings)
    labels = pd.read_parquet(out / "truth.parquet").set_index("id")
    return {
        name: (str(Path(row["path"]).relative_to(root)), row["split"], labels.loc[name].tolist())
        for name, row in images.iterrows()
    }


def test_images_of_one_stem_in_a_list_and_in_both(tmp_path):
    coco_list(tmp_path, "train2014", {"a.jpg": [7], "a.png": [90], "b.jpg": []})
    coco_list(tmp_path, "val2014", {"b.jpg": [90], "c.jpg": [7]})
    assert listed(tmp_path, tmp_path, "coco") == {
        "a.jpg": ("train2014/a.jpg", "train", [1, 0]),
        "a.png": ("train2014/a.png", "train", [0, 1]),
        "train2014/b.jpg": ("train2014/b.jpg", "train", [0, 0]),
        "val2014/b.jpg": ("val2014/b.jpg", "test", [0, 1]),
        "c": ("val2014/c.jpg", "test", [1, 0]),
    }


def test_a_dropped_image_still_keeps_the_stem_of_another_apart(tmp_path):
    coco_list(tmp_path, "train2014", {"a.jpg": [7], "a.png": [], "b.jpg": [90]})
    result = listed(tmp_path, tmp_path, "coco", unannotated="drop", coco={"test": None})
    assert {name: labels for name, (_, _, labels) in result.items()} == {"a.jpg": [1, 0], "b": [0, 1]}


@pytest.mark.parametrize("number", [str, float, "n{}".format, "{:06d}".format])
@pytest.mark.parametrize("unannotated", ["keep", "drop"])
def test_ids_that_are_no_whole_numbers(tmp_path, number, unannotated):
    coco_list(tmp_path, "train2014", {"a.jpg": [7], "b.jpg": [90, 7]}, number)
    result = listed(tmp_path, tmp_path, "coco", unannotated=unannotated, coco={"test": None})
    assert {name: labels for name, (_, _, labels) in result.items()} == {"a": [1, 0], "b": [1, 1]}


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        ("train2014", ["x/a.jpg", "y/a.jpg"]),
        ("images", ["a.jpg", "b.jpg"]),
        ("images", ["x\\a.jpg", "y\\a.jpg"]),
        (".", ["train2014/a.jpg", "train2014/b.jpg"]),
        (".", ["images/train2014/a.jpg", "images/train2014/x/a.jpg"]),
    ],
)
def test_folders_of_images(tmp_path, folder, files):
    coco_list(tmp_path, "train2014", {files[0]: [7], files[1]: [90]}, folder=folder)
    result = listed(tmp_path, tmp_path, "coco", coco={"test": None})
    plain = [file.replace("\\", "/") for file in files]
    assert list(result) == [file.removesuffix(".jpg") for file in plain]
    prefix = "" if folder == "." else f"{folder}/"
    assert list(result.values()) == [(prefix + plain[0], "train", [1, 0]), (prefix + plain[1], "train", [0, 1])]
    dataset = CocoDatasetConfig(root=tmp_path, coco={"test": None})
    assert count_on_disk(dataset, tmp_path) == len(list(images_on_disk(dataset, tmp_path))) == 2


@pytest.mark.parametrize("lost", ["train2014", "val2014"])
def test_a_drop_that_leaves_nothing_of_a_list(tmp_path, lost):
    for name in ("train2014", "val2014"):
        coco_list(tmp_path, name, {f"{name}.jpg": [] if name == lost else [7], f"{name} 2.jpg": []})
    message = rf"dataset\.unannotated: drop leaves none of the 2 images of list {lost} \(.*instances_{lost}\.json\)"
    with pytest.raises(UserError, match=message):
        listed(tmp_path, tmp_path, "coco", unannotated="drop")
    assert not (tmp_path / "out" / "images.parquet").exists()


@pytest.mark.parametrize("lost", ["Train", "Test"])
def test_a_drop_that_leaves_nothing_of_a_nus_list(tmp_path, lost):
    for split in ("Train", "Test"):
        rows = {f"{split} {i}.jpg": "00" if split == lost else "10" for i in range(2)}
        nus_lists(tmp_path, {split: rows})
    message = (
        rf"dataset\.unannotated: drop leaves none of the 2 images of list {lost}Imagelist \(.*{lost}Imagelist\.txt\)"
    )
    with pytest.raises(UserError, match=message):
        listed(tmp_path, tmp_path, "nus", unannotated="drop")
    assert not (tmp_path / "out" / "images.parquet").exists()


def voc(root, lists, objects, suffix=".jpg"):
    """lists: name -> text; objects: id -> names of classes."""
    for name, text in lists.items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_bytes(text.encode())
    for i, (image, names) in enumerate(objects.items()):
        draw_image(root / "JPEGImages" / f"{image}{suffix}", i)
        things = "".join(f"<object><name>{name}</name></object>" for name in names)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{image}.xml").write_text(f"<annotation>{things}</annotation>")


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".png"])
def test_voc_ids_with_spaces_that_end_like_labels(tmp_path, suffix):
    objects = {"my photo 0": ["cat"], "my photo 1": [" Dog "], "my photo 2": ["griffin"], "my photo": ["cat", "dog"]}
    voc(tmp_path, {"train": "my photo 0\r\nmy photo 1\r\n", "val": "my photo 2\nmy photo\n"}, objects, suffix)
    result = listed(tmp_path, tmp_path, "voc")
    assert {name: (split, labels) for name, (_, split, labels) in result.items()} == {
        "my photo 0": ("train", [1, 0]),
        "my photo 1": ("train", [0, 1]),
        "my photo 2": ("test", [0, 0]),
        "my photo": ("test", [1, 1]),
    }
    assert result["my photo 0"][0] == f"JPEGImages/my photo 0{suffix}"


def test_voc_lists_with_labels(tmp_path):
    voc(tmp_path, {"train": "my photo  1\r\nb -1\r\n", "val": "c  0\n"}, {"my photo": ["cat"], "b": ["dog"], "c": []})
    assert {name: labels for name, (_, _, labels) in listed(tmp_path, tmp_path, "voc").items()} == {
        "my photo": [1, 0],
        "b": [0, 1],
        "c": [0, 0],
    }


def test_what_annotations_and_classes_do_not_share_is_told(tmp_path, caplog):
    coco_list(tmp_path, "train2014", {"a.jpg": [7], "b.jpg": [90, 90]})
    settings = {
        "classes": ["cat", "griffin"],
        "dataset": {"kind": "coco", "root": str(tmp_path), "coco": {"test": None}},
    }
    manifest(tmp_path / "out" / "images.parquet", settings=settings)
    truth(tmp_path / "out" / "images.parquet", tmp_path / "out" / "truth.parquet", settings=settings)
    assert "2 labels of 1 names outside `classes` ignored: dog" in caplog.messages
    assert any("names 1 of 2 classes; no truth for griffin" in line for line in caplog.messages)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the cases are not here")
@pytest.mark.parametrize(
    ("case", "kind", "unannotated", "images"),
    [
        ("coco-same-stem", "coco", "keep", 17),
        ("coco-text-ids", "coco", "keep", 16),
        ("coco-text-ids", "coco", "drop", 16),
        ("coco-no-annotation", "coco", "drop", None),
        ("voc-spaces", "voc", None, 12),
    ],
)
def test_the_reported_cases(tmp_path, case, kind, unannotated, images):
    classes = ["cat", "dog", "person", "car"]
    dataset = {"kind": kind, "root": str(SHARED / case)} | ({"unannotated": unannotated} if unannotated else {})
    settings = {"classes": classes, "dataset": dataset}
    manifest_path = tmp_path / "images.parquet"
    if images is None:
        with pytest.raises(UserError, match=r"dataset\.unannotated: drop leaves none of the 12 images"):
            manifest(manifest_path, settings=settings)
        return
    manifest(manifest_path, settings=settings)
    truth(manifest_path, tmp_path / "truth.parquet", settings=settings)
    table = pd.read_parquet(tmp_path / "truth.parquet")
    assert len(table) == len(pd.read_parquet(manifest_path)) == images
    assert (table[classes].sum(axis=1) >= 1).sum() >= images - 1
