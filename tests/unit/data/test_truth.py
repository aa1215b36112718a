import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutsew.data.truth import Truth, to_table
from cutsew.data.truth_csv import split_labels
from cutsew.errors import UserError
from cutsew.stages.truth import truth
from cutsew.storage.manifest import write_manifest
from cutsew.storage.predictions import read_truth

CLASSES = ["dog", "cat", "person"]


def images(tmp_path, ids, root="images", splits=None, suffix=""):
    table = pd.DataFrame({"id": ids, "path": [f"{root}/{name}{suffix}" for name in ids]})
    table = table.assign(width=1, height=1, bytes=1, digest="0", split=splits or "train", shard=0)
    write_manifest(tmp_path / "images.parquet", table)
    return tmp_path / "images.parquet"


def objects(*things):
    return "".join(f"<object><name>{n}</name><difficult>{d}</difficult></object>" for n, d in things)


def annotate(root, **images):
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for name, things in images.items():
        text = f"<annotation>{objects(*things)}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)


def run(tmp_path, manifest, folder=None, classes=CLASSES, **dataset):
    out = tmp_path / "truth.parquet"
    truth(manifest, out, settings={"classes": classes, "dataset": dataset}, root=folder)
    return pd.read_parquet(out)


def run_csv(tmp_path, text, ids=("a.jpg", "b/c.jpg", "d.jpg"), **options):
    path = tmp_path / "truth.csv"
    path.write_text(text, encoding=options.pop("encoding", "utf-8"))
    manifest = images(tmp_path, list(ids))
    return run(tmp_path, manifest, kind="folder", root="images", truth=str(path), **options)


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
    record = json.loads((tmp_path / "truth.json").read_text())
    assert record["facts"]["other_names"] == {"sofa": 1}
    assert list(record["inputs"]) == ["images.parquet"]


def test_other_names_are_told(tmp_path, world, caplog):
    caplog.set_level("INFO")
    run(tmp_path, images(tmp_path, ["x", "y"]), kind="voc", root=str(world))
    assert "1 labels of 1 names outside `classes` ignored: sofa" in caplog.messages


def test_the_demo_takes_its_folder_from_the_command_and_may_lack_a_class(tmp_path, world):
    labels = run(tmp_path, images(tmp_path, ["x", "y"]), folder=world, classes=[*CLASSES, "sheep"], kind="demo")
    assert labels["sheep"].tolist() == [0, 0]


def test_one_missing_annotation_is_an_error_but_an_unlabeled_split_is_not(tmp_path, world, caplog):
    manifest = images(tmp_path, ["u", "x", "y"])
    with pytest.raises(UserError, match=r"u\.xml: no such annotation"):
        run(tmp_path, manifest, kind="voc", root=str(world))
    manifest = images(tmp_path, ["u", "x", "y"], splits=["train", "test", "test"])
    assert run(tmp_path, manifest, kind="voc", root=str(world))["id"].tolist() == ["x", "y"]
    assert "no image of the train list has an annotation; they have no ground truth" in caplog.messages
    with pytest.raises(UserError, match=r"dataset\.root: no image has an annotation"):
        run(tmp_path, images(tmp_path, ["u"]), kind="voc", root=str(world))


def test_a_class_that_never_occurs_is_unknown_and_told(tmp_path, world, caplog):
    manifest = images(tmp_path, ["x", "y"])
    classes = ["cat", "person", "doggy"]
    labels = run(tmp_path, manifest, kind="voc", root=str(world), classes=classes)
    assert labels[classes].to_numpy().tolist() == [[0, 0, -1], [1, 1, -1]]
    assert any("names 2 of 3 classes; no truth for doggy: excluded" in line for line in caplog.messages)
    record = json.loads((tmp_path / "truth.json").read_text())
    assert record["facts"]["classes_without_truth"] == ["doggy"]
    with pytest.raises(UserError, match=r"classes: .*names none of the 2 classes, and not doggy, cats; .*cat, dog"):
        run(tmp_path, manifest, kind="voc", root=str(world), classes=["doggy", "cats"])
    lists = world / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "sheep_train.txt").write_text("x -1\n")
    labels = run(tmp_path, manifest, kind="voc", root=str(world), classes=["cat", "person", "sheep"])
    assert labels["sheep"].tolist() == [0, 0]


def test_classes_are_found_in_another_case_and_with_other_spaces(tmp_path, caplog):
    annotate(tmp_path / "voc", x=[("Dog", 0), ("potted_plant", 0), ("cafe\u0301", 1)], y=[("dog", 0)])
    classes = ["dog", "Potted  plant", "caf\u00e9"]
    labels = run(tmp_path, images(tmp_path, ["x", "y"]), kind="voc", root=str(tmp_path / "voc"), classes=classes)
    assert labels[classes].to_numpy().tolist() == [[1, 1, 0], [1, 0, 0]]
    result = [line for line in caplog.messages if "are read as classes" in line]
    assert len(result) == 1 and "'Dog' as 'dog', 'potted_plant' as 'Potted  plant'" in result[0]


def test_golden_csv(tmp_path):
    labels = run_csv(tmp_path, "path,labels\nd.jpg,dog; cat\na.jpg,\n./b/c.jpg,person;person\n", encoding="utf-8-sig")
    assert labels["id"].tolist() == ["a.jpg", "b/c.jpg", "d.jpg"]
    assert labels[CLASSES].to_numpy().tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 0]]
    record = json.loads((tmp_path / "truth.json").read_text())
    assert list(record["inputs"]) == ["images.parquet", "truth.csv"]


@pytest.mark.parametrize("key", ["path,labels\nimages/a.jpg", "id,labels\na.jpg", "path,id,labels\nwhatever,a.jpg"])
def test_images_by_manifest_path_or_id(tmp_path, key):
    labels = run_csv(tmp_path, f"{key},dog;cat;person\n")
    assert labels.to_numpy().tolist() == [["a.jpg", 1, 1, 1]]


def test_the_root_as_a_relative_path_with_voc_ids(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,labels\nJPEGImages/x.jpg,dog;cat;person\n")
    manifest = images(tmp_path, ["x"], root="voc/JPEGImages", suffix=".jpg")
    assert run(tmp_path, manifest, kind="voc", root="voc", truth=str(path))["id"].tolist() == ["x"]


def test_only_some_images_and_strange_rows(tmp_path, caplog):
    labels = run_csv(tmp_path, "path,labels\na.jpg,dog\nelse.jpg,cat;person;unicorn\n")
    assert labels["id"].tolist() == ["a.jpg"]
    assert labels[CLASSES].to_numpy().tolist() == [[1, 0, 0]]
    assert any("1 of 2 rows of" in line and "line 3 'else.jpg'" in line for line in caplog.messages)
    assert "2 of 3 images have no truth, b/c.jpg for one: excluded from all metrics" in caplog.messages
    assert "1 labels of 1 names outside `classes` ignored: unicorn" in caplog.messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,labels\nelse.jpg,dog;cat;person\n", r"dataset\.truth: .* names none of the images"),
        (
            "path,labels\na.jpg,dog\na.jpg,cat\n",
            r"truth\.csv names 'a\.jpg' twice: 'dog' is there by line 2 and not by line 3",
        ),
        ("path,labels\na.jpg,dogs;cats\nd.jpg,men\n", r"names none of the 3 classes.*other names: cats, dogs, men"),
        ("where,labels\na.jpg,dog\n", r"needs the columns .*none of its columns names the image \(where, labels\)"),
        ("path,tags\na.jpg,dog\n", r"needs the columns .*no column is called labels or like one of the classes"),
        ("path,labels\na.jpg,dog,cat\n", r"line 2: not a readable CSV \(it has 3 fields, but the first line has 2\)"),
        ("path,labels\na.jpg,dog|cat\n", r"line 2, column labels: 'dog\|cat' is no class but several"),
        ('path,labels\nd.jpg,\na.jpg,"dog, cat"\n', r"line 3, column labels: 'dog, cat' is no class but several"),
        ("path,dog,cat\na.jpg,1,0\nd.jpg,yes,0\n", r"line 3, column dog: 'yes' is neither 1, 0 nor empty"),
        ("path,dog\na.jpg,1\nimages/a.jpg,0\n", r"names 'a\.jpg' twice: 'dog' is there by line 2 and not by line 3"),
        ("path,class,present\na.jpg,dog,1\na.jpg,dog,0\n", r"'dog' is there by line 2 and not by line 3"),
        ("path,labels\n", r"holds no row but its column names"),
        ("path,labels\na.jpg,dog\nd.jpg,dog,cat,person\n", r"dataset\.truth: .* not a readable CSV"),
        ("", r"dataset\.truth: .* not a readable CSV"),
    ],
)
def test_wrong_csvs(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        run_csv(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "truth.parquet").exists()


def test_missing_csv_and_no_truth_at_all(tmp_path):
    manifest = images(tmp_path, ["a.jpg"])
    with pytest.raises(UserError, match=r"dataset\.truth: .* does not exist"):
        run(tmp_path, manifest, kind="folder", root="images", truth="none.csv")
    with pytest.raises(UserError, match=r"dataset\.truth: not set"):
        run(tmp_path, manifest, kind="folder", root="images")


def test_classes_named_like_columns(tmp_path):
    classes = ["id", "path", "class/id", "labels", "present"]
    labels = run_csv(tmp_path, "path,labels\na.jpg,id;present\nd.jpg,path;class/id;labels\n", classes=classes)
    assert labels["id"].tolist() == ["a.jpg", "d.jpg"]
    result = read_truth(tmp_path / "truth.parquet", ["d.jpg", "a.jpg"], classes)
    assert result.tolist() == [[0, 1, 1, 1, 0], [1, 0, 0, 0, 1]]
    wide = "image,id,path,class/id,labels,present\na.jpg,1,0,0,0,1\nd.jpg,0,1,1,1,0\n"
    run_csv(tmp_path, wide, classes=classes)
    assert read_truth(tmp_path / "truth.parquet", ["d.jpg", "a.jpg"], classes).tolist() == result.tolist()
    run_csv(tmp_path, "id,dog,path\na.jpg,1,0\nd.jpg,0,1\n", classes=["id", "dog"])
    assert read_truth(tmp_path / "truth.parquet", ["d.jpg"], ["id", "dog"]).tolist() == [[-1, 0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\na.jpg,dog\na.jpg,cat\nd.jpg,person\n", [[1, 1, 0], [0, 0, 1]]),
        ("Image,Class,Present\na.jpg,dog,1\nd.jpg,dog,0\nd.jpg,cat,-1\n", [[1, -1, -1], [0, -1, -1]]),
        ("path,dog,person,width\na.jpg,1,,640\nd.jpg,0.0,True,480\n", [[1, -1, -1], [0, -1, 1]]),
        ("path,dog,cat\na.jpg,1,\na.jpg,,0\nd.jpg,-1,1\n", [[1, 0, -1], [-1, 1, -1]]),
        (",file_name,Dog\n0,a.jpg,1\n1,d.jpg,0\n", [[1, -1, -1], [0, -1, -1]]),
        ("id,path,labels\n0,a.jpg,dog\n1,d.jpg,cat\n", [[1, 0, -1], [0, 1, -1]]),
        ("path,labels\na.jpg,dog\na.jpg,dog\nd.jpg,\n", [[1, -1, -1], [0, -1, -1]]),
        ("image,labels,dog,cat\na.jpg,dog,0.9,0.3\nd.jpg,cat,0.1,0.8\n", [[1, 0, -1], [0, 1, -1]]),
    ],
)
def test_forms_of_a_csv(tmp_path, text, expected):
    labels = run_csv(tmp_path, text)
    assert labels["id"].tolist() == ["a.jpg", "d.jpg"]
    assert labels[CLASSES].to_numpy().tolist() == expected


def test_ids_without_images_may_stand_in_a_column_path(tmp_path):
    manifest = images(tmp_path, ["x1", "x2"])
    table = pd.read_parquet(manifest).assign(path="")
    write_manifest(manifest, table)
    (tmp_path / "truth.csv").write_text("path,labels\nimages/x2.jpg,dog\nx1,cat\n")
    labels = run(tmp_path, manifest, kind="ids", truth=str(tmp_path / "truth.csv"))
    assert labels["id"].tolist() == ["x1"]
    (tmp_path / "truth.csv").write_text("path,labels\nimages/x2.jpg,dog\n")
    with pytest.raises(UserError, match=r"names none of the images: line 2, column path, has 'images/x2\.jpg'.*'x1'"):
        run(tmp_path, manifest, kind="ids", truth=str(tmp_path / "truth.csv"))


def test_names_with_line_breaks_stay_on_one_line_of_the_log(tmp_path, caplog):
    run_csv(tmp_path, 'path,labels\na.jpg,"dog;x\ny"\n', classes=["dog", "new\nline"])
    result = [line for line in caplog.messages if "new" in line or "x" in line]
    assert any(r"no truth for new\nline" in line for line in result) and any(
        r"ignored: x\ny" in line for line in result
    )
    assert not any("\n" in line for line in result)


def test_a_class_with_a_semicolon(tmp_path):
    labels = run_csv(tmp_path, 'path;labels\na.jpg;"cat; tabby"\nd.jpg;dog\n', classes=["cat; tabby", "dog"])
    assert labels[["cat; tabby", "dog"]].to_numpy().tolist() == [[1, 0], [0, 1]]


def test_names_like_na_are_names(tmp_path):
    labels = run_csv(tmp_path, "path,labels\na.jpg,NA\nd.jpg,null\n", classes=["NA", "null"])
    assert labels[["NA", "null"]].to_numpy().tolist() == [[1, 0], [0, 1]]


def test_split_labels_by_hand():
    assert split_labels(" dog ;cat;; dog;") == ["dog", "cat"]
    assert split_labels("") == []


names = st.sampled_from(["dog", "cat", "person", "sofa"])
labels_by_image = st.dictionaries(st.sampled_from("abcdefgh"), st.dictionaries(names, st.sampled_from([1, 0, -1])))


@given(labels_by_image, st.permutations("abcdefgh"))
def test_a_table_says_what_the_labels_say_in_the_order_of_the_ids(labels, ids):
    table = to_table(Truth(labels=labels, known=set(CLASSES)), ids, CLASSES)
    assert table["id"].tolist() == [name for name in ids if name in labels]
    for _, row in table.iterrows():
        for name in CLASSES:
            assert row[name] == labels[row["id"]].get(name, 0)
