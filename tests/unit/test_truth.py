import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.artefacts.manifest import write_manifest
from cutsew.data.truth import Truth, split_labels, to_table
from cutsew.errors import UserError
from cutsew.stages.truth import truth

CLASSES = ["dog", "cat", "person"]


def images(tmp_path, ids, root="photos", splits=None, suffix=""):
    table = pd.DataFrame({"id": ids, "path": [f"{root}/{name}{suffix}" for name in ids]})
    table = table.assign(width=1, height=1, bytes=1, digest="0", split=splits or "train", shard=0)
    write_manifest(tmp_path / "images.parquet", table)
    return tmp_path / "images.parquet"


def objects(*things):
    return "".join(f"<object><name>{n}</name><difficult>{d}</difficult></object>" for n, d in things)


def annotate(root, **photos):
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for name, things in photos.items():
        text = f"<annotation>{objects(*things)}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)


def run(tmp_path, manifest, folder=None, classes=CLASSES, **dataset):
    out = tmp_path / "labels.parquet"
    truth(manifest, out, settings={"classes": classes, "dataset": dataset}, root=folder)
    return pd.read_parquet(out)


def run_csv(tmp_path, text, ids=("a.jpg", "b/c.jpg", "d.jpg"), **options):
    path = tmp_path / "truth.csv"
    path.write_text(text, encoding=options.pop("encoding", "utf-8"))
    manifest = images(tmp_path, list(ids))
    return run(tmp_path, manifest, kind="folder", root="photos", truth=str(path), **options)


@pytest.fixture
def world(tmp_path):
    annotate(
        tmp_path / "voc",
        x=[("dog", 0), ("dog", 1), ("cat", 1), ("sofa", 0)],
        y=[("person", 0), ("cat", 1), ("cat", 0)],
        z=[],
    )
    return tmp_path / "voc"


@pytest.mark.parametrize(("difficult", "cat"), [("negative", 0), ("ignore", -1), ("positive", 1)])
def test_golden_voc(tmp_path, world, difficult, cat):
    labels = run(tmp_path, images(tmp_path, ["x", "y", "z"]), kind="voc", root=str(world), difficult=difficult)
    assert labels.columns.tolist() == ["id", *CLASSES]
    assert labels["id"].tolist() == ["x", "y", "z"]
    assert labels[CLASSES].to_numpy().tolist() == [[1, cat, 0], [0, 1, 1], [0, 0, 0]]
    assert all(labels[name].dtype == np.int8 for name in CLASSES)
    record = json.loads((tmp_path / "labels.json").read_text())
    assert record["facts"]["other_names"] == {"sofa": 1}
    assert list(record["inputs"]) == ["images.parquet"]


def test_other_names_are_told(tmp_path, world, caplog):
    caplog.set_level("INFO")
    run(tmp_path, images(tmp_path, ["x", "y"]), kind="voc", root=str(world))
    assert "1 labels of 1 names outside `classes` ignored: sofa" in caplog.messages


def test_the_demo_takes_its_folder_from_the_command_and_may_lack_a_class(tmp_path, world):
    labels = run(tmp_path, images(tmp_path, ["x", "y"]), folder=world, classes=[*CLASSES, "sheep"], kind="demo")
    assert labels["sheep"].tolist() == [0, 0]


def test_one_missing_annotation_is_an_error_but_an_unlabelled_split_is_not(tmp_path, world, caplog):
    manifest = images(tmp_path, ["u", "x", "y"])
    with pytest.raises(UserError, match=r"u\.xml: no such annotation"):
        run(tmp_path, manifest, kind="voc", root=str(world))
    manifest = images(tmp_path, ["u", "x", "y"], splits=["train", "test", "test"])
    assert run(tmp_path, manifest, kind="voc", root=str(world))["id"].tolist() == ["x", "y"]
    assert "no photo of the train list has an annotation; it is left without truth" in caplog.messages
    with pytest.raises(UserError, match=r"dataset\.root: no photo has an annotation"):
        run(tmp_path, images(tmp_path, ["u"]), kind="voc", root=str(world))


def test_a_class_that_never_occurs(tmp_path, world):
    manifest = images(tmp_path, ["x", "y"])
    with pytest.raises(UserError, match=r"classes: doggy never named in .*Annotations; .*named there: dog, sofa"):
        run(tmp_path, manifest, kind="voc", root=str(world), classes=["cat", "person", "doggy"])
    lists = world / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "sheep_train.txt").write_text("x -1\n")
    labels = run(tmp_path, manifest, kind="voc", root=str(world), classes=["cat", "person", "sheep"])
    assert labels["sheep"].tolist() == [0, 0]


def test_golden_csv(tmp_path):
    labels = run_csv(tmp_path, "path,labels\nd.jpg,dog; cat\na.jpg,\n./b/c.jpg,person;person\n", encoding="utf-8-sig")
    assert labels["id"].tolist() == ["a.jpg", "b/c.jpg", "d.jpg"]
    assert labels[CLASSES].to_numpy().tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 0]]
    record = json.loads((tmp_path / "labels.json").read_text())
    assert list(record["inputs"]) == ["images.parquet", "truth.csv"]


@pytest.mark.parametrize("key", ["path,labels\nphotos/a.jpg", "id,labels\na.jpg", "path,id,labels\nwhatever,a.jpg"])
def test_photos_by_manifest_path_or_id(tmp_path, key):
    labels = run_csv(tmp_path, f"{key},dog;cat;person\n")
    assert labels.to_numpy().tolist() == [["a.jpg", 1, 1, 1]]


def test_the_root_as_a_relative_path_with_voc_ids(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,labels\nJPEGImages/x.jpg,dog;cat;person\n")
    manifest = images(tmp_path, ["x"], root="voc/JPEGImages", suffix=".jpg")
    assert run(tmp_path, manifest, kind="voc", root="voc", truth=str(path))["id"].tolist() == ["x"]


def test_only_some_photos_and_strange_rows(tmp_path, caplog):
    labels = run_csv(tmp_path, "path,labels\na.jpg,dog\nelse.jpg,cat;person;unicorn\n")
    assert labels["id"].tolist() == ["a.jpg"]
    assert labels[CLASSES].to_numpy().tolist() == [[1, 0, 0]]
    assert "1 rows of the truth name photos that are not in the manifest; ignored" in caplog.messages
    assert "1 labels of 1 names outside `classes` ignored: unicorn" in caplog.messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,labels\nelse.jpg,dog;cat;person\n", r"dataset\.truth: .* names none of the photos"),
        ("path,labels\na.jpg,dog\na.jpg,cat\n", r"dataset\.truth: .* names a\.jpg twice"),
        ("path,labels\na.jpg,dog;cats\nd.jpg,person\n", r"classes: cat never named in .*named there: cats"),
        ("file,labels\na.jpg,dog\n", r"dataset\.truth: .* needs the columns"),
        ("path,label\na.jpg,dog\n", r"dataset\.truth: .* needs the columns"),
        ("path,labels\na.jpg,dog,cat\n", r"dataset\.truth: .* Expected 2 fields"),
        ("path,labels\na.jpg,dog\nd.jpg,dog,cat,person\n", r"dataset\.truth: .* not a readable CSV"),
        ("", r"dataset\.truth: .* not a readable CSV"),
    ],
)
def test_wrong_csvs(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        run_csv(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "labels.parquet").exists()


def test_missing_csv_and_no_truth_at_all(tmp_path):
    manifest = images(tmp_path, ["a.jpg"])
    with pytest.raises(UserError, match=r"dataset\.truth: .* does not exist"):
        run(tmp_path, manifest, kind="folder", root="photos", truth="none.csv")
    with pytest.raises(UserError, match=r"dataset\.truth: not set"):
        run(tmp_path, manifest, kind="folder", root="photos")
    with pytest.raises(UserError, match="classes: id"):
        run(tmp_path, manifest, kind="folder", root="photos", truth="none.csv", classes=["id", "dog"])


def test_names_like_na_are_names(tmp_path):
    labels = run_csv(tmp_path, "path,labels\na.jpg,NA\nd.jpg,null\n", classes=["NA", "null"])
    assert labels[["NA", "null"]].to_numpy().tolist() == [[1, 0], [0, 1]]


def test_split_labels_by_hand():
    assert split_labels(" dog ;cat;; dog;") == ["dog", "cat"]
    assert split_labels("") == []


names = st.sampled_from(["dog", "cat", "person", "sofa"])
photos = st.dictionaries(st.sampled_from("abcdefgh"), st.dictionaries(names, st.sampled_from([1, 0, -1])))


@settings(deadline=None)
@given(photos, st.permutations("abcdefgh"))
def test_a_table_says_what_the_labels_say_in_the_order_of_the_ids(labels, ids):
    table = to_table(Truth(labels=labels), ids, CLASSES)
    assert table["id"].tolist() == [name for name in ids if name in labels]
    for _, row in table.iterrows():
        for name in CLASSES:
            assert row[name] == labels[row["id"]].get(name, 0)
