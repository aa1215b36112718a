"""Labels for Label Studio, CVAT, Hugging Face and YOLO: every value held against the Zarrs, with hostile names."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import typer
from synthetic_run import SETTINGS, make_run
from typer.testing import CliRunner

from cutsew.audit import label_export, label_formats
from cutsew.audit.image_folders import folder_names
from cutsew.commands.labels import labels
from cutsew.data.corrections_csv import corrections_of
from cutsew.errors import UserError
from cutsew.method.score import sigmoid
from cutsew.stages.corrections import corrections
from cutsew.stages.evaluate import evaluate
from cutsew.stages.labels_table import labels_table
from cutsew.storage import predictions
from cutsew.storage.label_table import names_in
from cutsew.storage.manifest import read_manifest, write_manifest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.result_tables import StageThresholds, Thresholds, write_thresholds

CLASSES = ("<b>&\"'", "../x/..", "new\nline;\\", ".cat", "train")
NAMES = ["$(touch x)", "new\nline", "<img src=x>&\"'", "-rf", "{run} ;#%?", "a::b", "test-1", "é ü"]
TRAIN = 5


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(predictions, "IMAGES_AT_ONCE", 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "results" / "tiny" / "default"
    names = [f"{name}.png" for name in NAMES]
    files = make_run(folder, train=TRAIN, test=len(NAMES) - TRAIN, classes=CLASSES, names=names)
    images = read_manifest(files["images"])
    image_rows = folder.parents[2] / "images"
    for name, path in zip(names, images["path"], strict=True):
        image_rows.mkdir(exist_ok=True)
        shutil.move(path, image_rows / name)
    write_manifest(files["images"], images.assign(path=[str(image_rows / name) for name in names]))
    zarrs = {name: files[name] for name in ("logits", "fused", "pseudo", "refined", "scores")}
    evaluate(files["images"], folder / "metrics.csv", settings=SETTINGS, **zarrs)
    rows = [(names[0], CLASSES[0], 1), (names[0], CLASSES[1], 0), (names[-1], CLASSES[2], 1)]
    stated = folder.parent / "audit.csv"
    pd.DataFrame(rows, columns=["image", "class", "present"]).to_csv(stated, index=False)
    result = {"labels": {"overrides": str(stated)}, "classes": list(CLASSES), "student": {"kind": "open_clip"}}
    corrections(files["images"], stated, folder / "corrections.parquet", result)
    return folder


SAID = {"$(touch x).png": {CLASSES[0]: 1, CLASSES[1]: 0}, "é ü.png": {CLASSES[2]: 1}}


def call(run, *arguments):
    app = typer.Typer()
    app.command()(labels)
    return CliRunner().invoke(app, [str(argument) for argument in (run, *arguments)])


def expected(run):
    """Each image's labels, a human's corrections applied."""
    images, result = read_manifest(run / "images.parquet"), {}
    for split, stage, zarr in (("train", "refined", "refined"), ("test", "student", "scores")):
        ids = images.loc[images["split"] == split, "id"].tolist()
        p = sigmoid(StagePredictions(stage, run / f"{zarr}.zarr").read(ids))
        for name, row in zip(ids, p, strict=True):
            has = {c: bool(value >= 0.5) for c, value in zip(CLASSES, row, strict=True)} | SAID.get(name, {})
            result[name] = {c for c, yes in has.items() if yes}
    return result


def test_label_studio_tasks_have_predictions_and_an_interface(run, tmp_path):
    done = call(run, tmp_path / "tasks.json", "--format", "labelstudio", "--root", run.parents[2])
    assert done.exit_code == 0, done.output
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    results = {task["data"]["id"]: task for task in tasks}
    requested = expected(run)
    assert set(results) == set(requested) and len(tasks) == len(NAMES)
    for name, task in results.items():
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert set(result["value"]["choices"]) == requested[name] and 0.5 <= prediction["score"] <= 1
        assert task["data"]["by_human"] == SAID.get(name, {})
        where, _, place = task["data"]["image"].partition("?d=")
        assert where == "/data/local-files/" and unquote(place) == f"images/{name}"
        assert not set("\n#?<>\"' ") & set(place)
    interface = ET.parse(tmp_path / "tasks.xml").getroot()
    assert [choice.get("value") for choice in interface.iter("Choice")] == list(CLASSES)
    (choices,) = interface.iter("Choices")
    assert (choices.get("name"), choices.get("toName"), choices.get("choice")) == ("labels", "image", "multiple")
    assert f"{sum(map(len, requested.values()))} labels" in done.stdout


def test_label_studio_images_may_be_served_from_elsewhere(run, tmp_path):
    call(run, tmp_path / "t.json", "--format", "labelstudio", "--root", run.parents[2] / "images", "--url", "http://h/")
    addresses = [task["data"]["image"] for task in json.loads((tmp_path / "t.json").read_text())]
    assert {unquote(text.removeprefix("http://h/")) for text in addresses} == {f"{name}.png" for name in NAMES}


def test_cvat_tags_are_those_labels(run, tmp_path):
    assert call(run, tmp_path / "tags.xml", "--format", "cvat").exit_code == 0
    tree = ET.parse(tmp_path / "tags.xml").getroot()
    assert tree.findtext("version") == "1.1"
    assert [label.text for label in tree.iter("name")] == list(CLASSES)
    images = list(tree.iter("image"))
    assert [image.get("id") for image in images] == [str(i) for i in range(len(NAMES))]
    result = {image.get("name"): {tag.get("label"): tag.get("source") for tag in image.iter("tag")} for image in images}
    requested = expected(run)
    assert {name: set(tags) for name, tags in result.items()} == requested
    for name, tags in result.items():
        by_hand = {c for c, source in tags.items() if source == "manual"}
        assert by_hand == {c for c, present in SAID.get(name, {}).items() if present}
    assert (images[0].get("width"), images[0].get("height")) == ("60", "45")


def test_what_xml_cannot_hold_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(label_export.Labels, "classes", ["a\x01", "b", "c", "d", "e"])
    for form, name in (("cvat", "l.xml"), ("labelstudio", "l.json")):
        error = call(run, tmp_path / name, "--format", form).exception
        assert isinstance(error, UserError) and "'a\\x01' contains a character" in str(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["link", "copy"])
def test_a_hugging_face_folder_has_images_and_metadata(run, tmp_path, way):
    assert call(run, tmp_path / "hf", "--format", "huggingface", "--images", way).exit_code == 0
    requested, images = expected(run), read_manifest(run / "images.parquet").set_index("id")
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == ["test", "train"]
    seen = {}
    for split in ("train", "test"):
        folder = tmp_path / "hf" / split
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        assert {row["file_name"] for row in rows} == {path.name for path in folder.iterdir()} - {"metadata.jsonl"}
        for row in rows:
            file = folder / row["file_name"]
            assert file.is_symlink() == (way == "link")
            assert file.read_bytes() == Path(images.loc[row["id"], "path"]).read_bytes()
            assert images.loc[row["id"], "split"] == split and len(row["probabilities"]) == len(row["labels"])
            seen[row["id"]] = set(row["labels"])
            assert set(row["by_human"]) == set(SAID.get(row["id"], {}))
    assert seen == requested


@pytest.mark.parametrize("way", ["link", "copy"])
def test_a_yolo_folder_has_each_image_below_each_of_its_classes(run, tmp_path, way):
    assert call(run, tmp_path / "yolo", "--format", "yolo", "--images", way).exit_code == 0
    with (tmp_path / "yolo" / "classes.csv").open(newline="") as file:
        name_of = {row["folder"]: row["class"] for row in csv.DictReader(file)}
    with (tmp_path / "yolo" / "images.csv").open(newline="") as file:
        id_of = {row["file"]: row["id"] for row in csv.DictReader(file)}
    assert list(name_of.values()) == list(CLASSES)
    result = {name: set() for name in id_of.values()}
    for split, home in (("train", "train"), ("test", "val")):
        for folder in (tmp_path / "yolo" / home).iterdir():
            for path in folder.iterdir():
                assert path.is_symlink() == (way == "link") and path.stat().st_size > 0
                result[id_of[path.name]].add(name_of[folder.name])
                assert (read_manifest(run / "images.parquet").set_index("id")["split"])[id_of[path.name]] == split
    assert result == expected(run)


def test_folder_names_stay_in_their_folder_and_differ():
    names = ["a/b", "a\\b", "..", ".", "", " ", "CON", "Cat", "cat", "x" * 400, "x" * 400 + "y", "\x00", "a/../../b"]
    result = folder_names(names)
    assert len({name.casefold() for name in result}) == len(names)
    for name in result:
        assert name and len(name.encode()) < 255 and not set("/\\\0") & set(name) and not name.startswith(".")


@pytest.mark.parametrize("form", ["huggingface", "yolo"])
def test_a_folder_that_holds_something_is_left_alone(run, tmp_path, form):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "image.jpg").write_text("mine")
    error = call(run, tmp_path / "mine", "--format", form).exception
    assert isinstance(error, UserError) and "already exists; name a new folder" in str(error)
    assert (tmp_path / "mine" / "image.jpg").read_text() == "mine"


@pytest.mark.parametrize("form", ["labelstudio", "fiftyone", "huggingface", "yolo", "cvat"])
def test_images_in_a_tar_have_no_files_to_show(run, tmp_path, form):
    shutil.copytree(run.parent, tmp_path / "tiny")
    copy = tmp_path / "tiny" / run.name
    images = read_manifest(copy / "images.parquet")
    addresses = [f"tar://{name}@{512 + 1024 * row}+7::/far/a.tar" for row, name in enumerate(images["id"])]
    write_manifest(copy / "images.parquet", images.assign(path=addresses))
    (tmp_path / "out").mkdir()
    name = {"cvat": "labels.xml", "labelstudio": "labels.json", "fiftyone": "labels.json"}.get(form, "folder")
    done = call(copy, tmp_path / "out" / name, "--format", form)
    if form == "cvat":  # names images, and needs no file
        assert done.exit_code == 0, done.output
        tree = ET.parse(tmp_path / "out" / "labels.xml").getroot()
        assert [image.get("name") for image in tree.iter("image")] == images["id"].tolist()
        return
    message = f"--format: {form} needs images that are files of their own"
    assert isinstance(done.exception, UserError) and message in str(done.exception)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("form", ["huggingface", "yolo"])
def test_no_half_folder_is_left(run, tmp_path, monkeypatch, form):
    batches = label_export.Labels.batches

    def broken(self):
        yield next(batches(self))
        raise KeyboardInterrupt

    monkeypatch.setattr(label_export.Labels, "batches", broken)
    assert call(run, tmp_path / "out", "--format", form).exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_only_the_images_of_a_list(run, tmp_path):
    (tmp_path / "next.csv").write_text("rank,id\n1,-rf.png\n2,a::b.png\n")
    done = call(run, tmp_path / "t.json", "--format", "labelstudio", "--only", tmp_path / "next.csv")
    tasks = json.loads((tmp_path / "t.json").read_text())
    assert [task["data"]["id"] for task in tasks] == ["-rf.png", "a::b.png"] and "2 images" in done.stdout


def test_the_table_is_written_for_other_stages_too(run, tmp_path):
    assert call(run, tmp_path / "l.csv", "--format", "csv", "--stage", "fused").exit_code == 0
    table = pd.read_csv(tmp_path / "l.csv")
    assert set(table["stage"]) == {"fused"} and len(table) == len(NAMES)
    assert call(run, tmp_path / "l.parquet", "--format", "parquet", "--stage", "fused").exit_code == 0
    assert pd.read_parquet(tmp_path / "l.parquet")["id"].tolist() == table["id"].tolist()


def test_the_students_labels_are_decided_by_its_thresholds(run, tmp_path):
    local_values = shutil.copytree(run, tmp_path / "results" / "tiny" / "default")
    by_class = [0.1, 0.3, 0.5, 0.7, 0.9]
    result = Thresholds("count", {"fixed": [0.5] * 5, "count": by_class})
    rows = [StageThresholds.of_logits("student", result, np.zeros((1, 5), np.float32), [0.1] * 5)]
    rows.append(rows[0]._replace(stage="refined", thresholds=Thresholds("count", {"count": by_class[::-1]})))
    write_thresholds(local_values / "thresholds.csv", list(CLASSES), rows)
    assert call(local_values, tmp_path / "l.csv", "--format", "csv", "--no-corrections").exit_code == 0
    stages = [f"refined={local_values / 'refined.zarr'}", f"student={local_values / 'scores.zarr'}"]
    given = {"settings": SETTINGS, "stage": stages, "thresholds": local_values / "thresholds.csv"}
    labels_table(local_values / "images.parquet", local_values / "labels.csv", **given)
    assert (tmp_path / "l.csv").read_bytes() == (local_values / "labels.csv").read_bytes()
    table = pd.read_csv(tmp_path / "l.csv", keep_default_na=False)
    for split, thresholds in (("train", by_class[::-1]), ("test", by_class)):
        rows = table[table["split"] == split]
        decided = rows[[f"p_{name}" for name in CLASSES]].to_numpy() >= thresholds
        assert [len(names_in(text)) for text in rows["labels"]] == decided.sum(axis=1).tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("l.json", "--format", "coco", "--images", "copy"), "--images: for huggingface and yolo only"),
        (("l.json", "--format", "coco", "--root", "."), "--root: for labelstudio and cvat only"),
        (("l.xml", "--format", "cvat", "--url", "x"), "--url: for labelstudio only"),
        (("l.json", "--format", "cvat"), "l.json: the name must end in .xml"),
        (("l.xml", "--format", "cvat", "--root", "nowhere"), "--root: nowhere: no such folder"),
        (("l.xml", "--format", "cvat", "--root", "/proc/self"), "does not lie below"),
        (("l.xml", "--format", "cvat", "--only", "gone.csv"), "--only: gone.csv does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(run, tmp_path, options, said):
    error = call(run, tmp_path / options[0], *options[1:]).exception
    assert isinstance(error, UserError) and said in str(error) and "\n" not in str(error)
    assert list(tmp_path.iterdir()) == []


# The tools' own loaders. They are not among cutsew's packages: name the Python of an environment that has them.

LOADERS = os.environ.get("CUTSEW_LOADERS", sys.executable)


def load(script, *arguments):
    """Run a script in the environment of the tools; skip where it lacks them."""
    words = [LOADERS, "-c", script, *map(str, arguments)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "FIFTYONE_DO_NOT_TRACK": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=offline, check=False)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


DATASETS = """
import json, sys, datasets
found = datasets.load_dataset("imagefolder", data_dir=sys.argv[1], cache_dir=sys.argv[2])
rows = {split: {row["id"]: [row["labels"], row["image"].size] for row in part} for split, part in found.items()}
print(json.dumps(rows))
"""


def test_datasets_loads_the_hugging_face_folder(run, tmp_path):
    call(run, tmp_path / "hf", "--format", "huggingface")
    result = load(DATASETS, tmp_path / "hf", tmp_path / "cache")
    rows = {name: set(names) for part in result.values() for name, (names, _) in part.items()}
    assert rows == expected(run) and len(result["train"]) == TRAIN
    assert all(size == [60, 45] for part in result.values() for _, size in part.values())


LABEL_STUDIO = """
import json, sys
from pathlib import Path
from label_studio_sdk.label_interface import LabelInterface
interface = LabelInterface(Path(sys.argv[2]).read_text())
tasks = json.loads(Path(sys.argv[1]).read_text())
for task in tasks:
    interface.validate_task({"data": task["data"]})
    for prediction in task["predictions"]:
        assert interface.validate_prediction(prediction), prediction
print(json.dumps(interface.get_control("labels").labels))
"""


def test_label_studio_takes_the_tasks_and_the_interface(run, tmp_path):
    call(run, tmp_path / "t.json", "--format", "labelstudio")
    assert load(LABEL_STUDIO, tmp_path / "t.json", tmp_path / "t.xml") == list(CLASSES)


EXPORTED = """
import json, sys
from pathlib import Path
from label_studio_sdk.converter import Converter
converter = Converter(Path(sys.argv[2]).read_text(), sys.argv[3], download_resources=False)
converter.convert_to_json_min(sys.argv[1], sys.argv[3], is_dir=False)
(made,) = Path(sys.argv[3]).glob("*.json")
print(json.dumps(json.loads(made.read_text())))
"""


def annotated(tasks):
    """Annotate Label Studio's tasks as an export has it: each has its first class alone."""
    for number, task in enumerate(tasks, start=1):
        (result,) = task["predictions"][0]["result"]
        record = {**result, "value": {"choices": [CLASSES[number % len(CLASSES)]]}}
        task["annotations"] = [{"id": number, "result": [record], "was_cancelled": False, "completed_by": {"id": 1}}]
        task["id"] = number
    return tasks


def test_what_is_annotated_in_label_studio_comes_back(run, tmp_path):
    call(run, tmp_path / "t.json", "--format", "labelstudio")
    tasks = annotated(json.loads((tmp_path / "t.json").read_text()))
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    result = corrections_of(tmp_path / "export.json", [f"{name}.png" for name in NAMES], CLASSES)
    present = result[result["present"] == 1].groupby("image")["class"].agg(list).to_dict()
    assert present == {task["data"]["id"]: [CLASSES[task["id"] % len(CLASSES)]] for task in tasks}
    assert len(result) == len(NAMES) * len(CLASSES)


def test_label_studios_converter_reads_the_export_that_is_read_here(run, tmp_path):
    call(run, tmp_path / "t.json", "--format", "labelstudio")
    (tmp_path / "export.json").write_text(json.dumps(annotated(json.loads((tmp_path / "t.json").read_text()))))
    (tmp_path / "out").mkdir()
    rows = load(EXPORTED, tmp_path / "export.json", tmp_path / "t.xml", tmp_path / "out")
    assert [row["labels"] for row in rows] == [CLASSES[row["id"] % len(CLASSES)] for row in rows]
    assert len(rows) == len(NAMES)


COCO = """
import json, sys
from pycocotools.coco import COCO
coco = COCO(sys.argv[1])
names = {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())}
found = {i: coco.loadAnns(coco.getAnnIds(imgIds=[i])) for i in coco.getImgIds()}
print(json.dumps({coco.imgs[i]["image"]: [names[a["category_id"]] for a in rows] for i, rows in found.items()}))
"""


def test_pycocotools_reads_the_annotations(run, tmp_path):
    call(run, tmp_path / "coco.json", "--format", "coco")
    result = load(COCO, tmp_path / "coco.json")
    assert {name: set(labels) for name, labels in result.items()} == expected(run)


FIFTYONE = """
import json, sys
import fiftyone.utils.data as data
importer = data.FiftyOneImageClassificationDatasetImporter(labels_path=sys.argv[1])  # without FiftyOne's database
with importer:
    rows = {path: [[c.label, c.confidence] for c in label.classifications] for path, _, label in importer}
print(json.dumps(rows))
"""


def test_fiftyones_importer_reads_several_labels_an_image(run, tmp_path):
    call(run, tmp_path / "labels.json", "--format", "fiftyone")
    result = load(FIFTYONE, tmp_path / "labels.json")
    place = read_manifest(run / "images.parquet").set_index("path")["id"]
    assert {place[path]: {name for name, _ in labels} for path, labels in result.items()} == expected(run)
    assert all(0 <= confidence <= 1 for labels in result.values() for _, confidence in labels)


DATUMARO = """
import json, sys, datumaro
dataset = datumaro.Dataset.import_from(sys.argv[1], "cvat")
names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
print(json.dumps({item.id: sorted(names[a.label] for a in item.annotations) for item in dataset}))
"""


def test_datumaro_reads_the_cvat_tags(run, tmp_path):
    names = [f"{name}.png" for name in NAMES if "::" not in name]  # which Datumaro takes for a drive's letter
    pd.DataFrame({"id": names}).to_csv(tmp_path / "only.csv", index=False)
    call(run, tmp_path / "tags.xml", "--format", "cvat", "--only", tmp_path / "only.csv")
    shutil.copytree(run.parents[2] / "images", tmp_path / "images")
    requested = expected(run)
    assert load(DATUMARO, tmp_path) == {name.removesuffix(".png"): sorted(requested[name]) for name in names}


def test_a_csv_of_many_classes_has_no_probabilities(run, tmp_path, monkeypatch):
    def table(name):
        form = name.partition(".")[2]
        assert call(run, tmp_path / name, "--format", form).exit_code == 0
        return pd.read_parquet(tmp_path / name) if form == "parquet" else pd.read_csv(tmp_path / name)

    wide, stored = table("wide.csv"), table("wide.parquet")
    monkeypatch.setattr(label_formats, "CSV_CLASSES", len(CLASSES) - 1)
    narrow = table("narrow.csv")
    probabilities = [f"p_{name}" for name in CLASSES]
    assert [*wide.columns] == [*narrow.columns, *probabilities] and not set(probabilities) & set(narrow.columns)
    pd.testing.assert_frame_equal(narrow, wide[[*narrow.columns]])
    pd.testing.assert_frame_equal(table("narrow.parquet"), stored)
