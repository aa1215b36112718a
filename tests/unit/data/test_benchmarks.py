"""The benchmarks' layouts: which images, which labels, and what the settings change about them."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from benchmark_copies import NUS_CONCEPTS, VOC_CLASSES, make_coco, make_nus, make_voc

from cutsew.config import load
from cutsew.config.benchmarks import BENCHMARK_SPECS
from cutsew.config.loading import DEFAULT
from cutsew.data import coco, nus
from cutsew.data.listing import list_images, listing_fingerprint, truth_fingerprint
from cutsew.data.voc import read_annotation
from cutsew.errors import UserError
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.preflight import validate_inputs
from cutsew.stages.manifest import manifest
from cutsew.stages.truth import truth
from cutsew.storage.manifest import write_manifest

CLASSES = ["airport", "birds", "cat"]
REAL = Path(__file__).parents[4] / "shared" / "voc-real"


def settings_of(root, kind, classes=CLASSES, **dataset):
    return {"classes": list(classes), "dataset": {"name": "b", "kind": kind, "root": str(root), **dataset}}


def made(tmp_path, raw):
    """Run the stages manifest and truth; return images, labels and the two records."""
    plan, out = Plan(raw), tmp_path / "out"
    manifest(out / "images.parquet", settings=plan.settings(DEFAULT, "manifest"))
    truth(out / "images.parquet", out / "truth.parquet", settings=plan.settings(DEFAULT, "truth"))
    images, labels = (pd.read_parquet(out / f"{name}.parquet") for name in ("images", "truth"))
    return images, labels.set_index("id"), json.loads((out / "images.json").read_text())["facts"]


@pytest.fixture
def coco_root(tmp_path):
    make_coco(tmp_path / "coco", CLASSES)
    return tmp_path / "coco"


@pytest.fixture
def nus_root(tmp_path):
    make_nus(tmp_path / "nus", CLASSES, train=4, test=3)
    return tmp_path / "nus"


@pytest.mark.parametrize(("unannotated", "train", "test"), [("keep", 5, 4), ("drop", 4, 3)])
def test_coco_images_and_labels(tmp_path, coco_root, unannotated, train, test):
    images, labels, facts = made(tmp_path, settings_of(coco_root, "coco", unannotated=unannotated))
    assert (facts["train"], facts["test"], facts["dropped"]) == (train, test, 9 - train - test)
    assert images["id"][0] == "COCO_train2014_000000000100"
    assert images["path"][0] == str(coco_root / "train2014" / "COCO_train2014_000000000100.jpg")
    # image 100 + i shows class i of three, crowds too; the last of each list shows nothing
    assert labels.loc["COCO_train2014_000000000100"].tolist() == [1, 0, 0]
    assert labels.loc["COCO_train2014_000000000103"].tolist() == [1, 0, 0]
    assert labels.loc["COCO_val2014_000000000201"].tolist() == [0, 1, 0]
    if unannotated == "keep":
        assert labels.loc["COCO_val2014_000000000203"].tolist() == [0, 0, 0]
    assert len(labels) == len(images) == train + test


@pytest.mark.parametrize(("unannotated", "train", "test"), [("keep", 4, 3), ("drop", 3, 2)])
def test_nus_images_and_labels(tmp_path, nus_root, unannotated, train, test):
    images, labels, facts = made(tmp_path, settings_of(nus_root, "nus", unannotated=unannotated))
    assert (facts["train"], facts["test"], facts["dropped"]) == (train, test, 7 - train - test)
    assert images["id"][0] == "actor/0000_2124494179.jpg"
    assert images["path"][0] == str(nus_root / "Flickr" / "actor" / "0000_2124494179.jpg")
    assert labels.loc["actor/0002_2124494181.jpg"].tolist() == [0, 0, 1]
    assert labels.loc["actor/0051_2124494230.jpg"].tolist() == [0, 1, 0]
    assert len(labels) == len(images) == train + test


@pytest.mark.parametrize(
    "place",
    [
        "Flickr/{tag}/{plain}",
        "images/{tag}/{plain}",
        "images/{plain}",
        "Flickr/{plain}",
        "images/{number}",
        "{tag}/{plain}",
    ],
)
def test_nus_copies_keep_images_in_many_ways(nus_root, place):
    names = nus.read_list(nus_root, "TrainImagelist", "dataset.nus.train")
    shutil.move(nus_root / "Flickr", nus_root / "release")
    expected = []
    for name in names:
        tag, plain = name.split("/")
        expected.append(nus_root / place.format(tag=tag, plain=plain, number=plain.split("_")[1]))
        expected[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.move(nus_root / "release" / name, expected[-1])
    assert nus.image_paths(nus_root, names) == list(map(str, expected))
    expected[0].unlink()  # a copy that lacks images is recognized by those that it has
    assert nus.image_paths(nus_root, names) == list(map(str, expected))


def test_nus_files_may_lie_in_the_root(tmp_path, nus_root):
    before = nus.read_labels(nus_root)
    for folder in ("ImageList", "ConceptsList", "Groundtruth"):
        for path in (nus_root / folder).iterdir():
            shutil.move(path, nus_root / path.name)
        (nus_root / folder).rmdir()
    after = nus.read_labels(nus_root)
    assert after.rows == before.rows and (after.values == before.values).all()


def test_the_damaged_line_of_nus_is_not_counted(tmp_path, nus_root):
    shutil.rmtree(nus_root / "Groundtruth" / "AllLabels")
    (nus_root / "Groundtruth" / "TrainTestLabels" / "Labels_cat_Train.txt").write_text("0\n-1130179\n1\n0\n")
    labels = made(tmp_path, settings_of(nus_root, "nus"))[1]
    assert labels["cat"].tolist()[:4] == [0, -1, 1, 0]


def test_nus_labels_that_do_not_fit_their_list(nus_root):
    path = nus_root / "Groundtruth" / "AllLabels" / "Labels_cat.txt"
    path.write_text("1\n0\n")
    with pytest.raises(UserError, match=r"Labels_cat\.txt has 2 entries for 7 images"):
        nus.read_labels(nus_root)
    path.unlink()
    with pytest.raises(UserError, match=r"Labels_cat\.txt does not exist; run cutsew check_dataset"):
        nus.read_labels(nus_root)


def test_nus_images_nowhere(nus_root):
    shutil.rmtree(nus_root / "Flickr")
    with pytest.raises(UserError, match=r"no listed image was found below .*Flickr/<tag>"):
        list_images(load(settings_of(nus_root, "nus")).dataset)


def test_a_list_of_ones_own_has_the_labels_of_the_release(tmp_path, nus_root):
    local_values = tmp_path / "own.txt"
    local_values.write_text("actor/0002_2124494181.jpg\n./actor/0050_2124494229.jpg\n")
    images, labels, _ = made(tmp_path, settings_of(nus_root, "nus", nus={"train": str(local_values), "test": None}))
    assert images["split"].tolist() == ["train", "train"]
    assert labels.to_numpy().tolist() == [[0, 0, 1], [1, 0, 0]]
    local_values.write_text("actor/9999_1.jpg\n")
    with pytest.raises(UserError, match="9999_1.jpg is on a list, but not on one that comes with labels"):
        nus.read_labels(nus_root).any(nus.read_list(nus_root, str(local_values), "dataset.nus.train"))


def test_coco_images_below_images(coco_root):
    (coco_root / "images").mkdir()
    for name in ("train2014", "val2014"):
        shutil.move(coco_root / name, coco_root / "images" / name)
    names, paths, _ = coco.list_images(coco_root, "train2014", "dataset.coco.train", drop=False)
    assert paths == [str(coco_root / "images" / "train2014" / f"{name}.jpg") for name in names]


def instances(**parts):
    sound = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    return json.dumps({**sound, **parts})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an instances JSON"),
        ('{"images": [', "not an instances JSON"),
        ('{"images": [1]}', "not an instances JSON"),
        ("[]", "names no image"),
        (instances(images=[{"id": 1, "file_name": "../../etc/passwd"}]), "no file name below its folder"),
        (instances(images=[{"id": 1, "file_name": "a\\..\\b.jpg"}]), "no file name below its folder"),
        (instances(images=[{"id": 1}]), "no file name below its folder"),
        (instances(categories=[{"id": 1}]), "category 1 has no id or no name"),
        (instances(categories=[{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]), "category 1 is 'x' and 'y'"),
        (
            instances(annotations=[{"id": 5, "image_id": 2, "category_id": 1}]),
            "annotation 5 refers to an image or category",
        ),
        (
            instances(annotations=[{"id": 5, "image_id": 1, "category_id": 2}]),
            "annotation 5 refers to an image or category",
        ),
    ],
)
def test_damaged_instances(coco_root, text, message):
    coco.instances_path(coco_root, "train2014").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        coco.list_images(coco_root, "train2014", "dataset.coco.train", drop=False)
        coco.read_instances(coco_root, "train2014", "dataset.coco.train")
    assert "\n" not in str(caught.value)


def test_a_category_or_concept_that_there_is_not(tmp_path, coco_root, nus_root, caplog):
    for root, kind in ((coco_root, "coco"), (nus_root, "nus")):
        labels = made(tmp_path, settings_of(root, kind, classes=["cat", "unicorn"]))[1]
        assert set(labels["unicorn"]) == {-1} and set(labels["cat"]) == {0, 1}
        place = root / "annotations" / "instances_train2014.json" if kind == "coco" else root
        told = f"dataset.root: {place} names 1 of 2 classes; no truth for unicorn: excluded from all metrics"
        assert told in caplog.text
        with pytest.raises(
            UserError, match=r"classes: .* names none of the 2 classes.*other names: airport, birds, cat"
        ):
            made(tmp_path, settings_of(root, kind, classes=["griffin", "unicorn"]))


def test_a_class_without_images_is_no_slip(tmp_path, coco_root):
    path = coco.instances_path(coco_root, "train2014")
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"annotations": whole["annotations"][:1]}))
    labels = made(tmp_path, settings_of(coco_root, "coco", coco={"test": None}))[1]
    assert labels.sum().tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("difficult", "labels"), [("negative", [1, 0, 0]), ("ignore", [1, -1, 0]), ("positive", [1, 1, 0])]
)
def test_difficult_changes_the_labels_of_voc(tmp_path, difficult, labels):
    make_voc(tmp_path / "voc", {"train": ["a", "b", "c"], "val": ["d"]}, CLASSES)
    made_labels = made(tmp_path, settings_of(tmp_path / "voc", "voc", difficult=difficult))[1]
    assert made_labels.loc["a"].tolist() == labels


VOC_LISTS = {"train": ["a", "b"], "val": ["c"], "trainval": ["a", "b", "c"], "test": ["d", "e"]}


@pytest.mark.parametrize(("protocol", "train", "test"), [("paper", "ab", "c"), ("common", "abc", "de")])
def test_the_protocol_of_voc_2007_chooses_the_lists(tmp_path, protocol, train, test):
    make_voc(tmp_path / "voc", VOC_LISTS, VOC_CLASSES.split())
    raw = settings_of(
        tmp_path / "voc", "voc", VOC_CLASSES.split(), benchmark="voc2007", protocol=protocol, allow_incomplete=True
    )
    images, _, _ = made(tmp_path, raw)
    split = images.groupby("split")["id"].sum()
    assert (split["train"], split["test"]) == (train, test)


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("paper", "lists 2 images to label and 1 held-out ones, but protocol paper has 2501 and 2510"),
        ("common", "lists 3 images to label and 2 held-out ones, but protocol common has 5011 and 4952"),
    ],
)
def test_a_copy_that_is_not_whole(tmp_path, protocol, said):
    make_voc(tmp_path / "voc", VOC_LISTS, CLASSES)
    raw = settings_of(tmp_path / "voc", "voc", VOC_CLASSES.split(), benchmark="voc2007", protocol=protocol)
    with pytest.raises(UserError, match=said):
        list_images(load(raw).dataset)
    with pytest.raises(UserError, match=f"{said}.* set dataset.allow_incomplete: true"):
        validate_inputs(load(raw | {"student": {"kind": "none"}}))


@pytest.mark.parametrize(
    ("benchmark", "unannotated", "train", "test"),
    [
        ("voc2012", "keep", 5717, 5823),
        ("voc2007", "keep", 2501, 2510),
        ("coco2014", "drop", 82081, 40137),
        ("coco2014", "keep", 82783, 40504),
    ],
)
def test_the_counts_that_are_asserted(monkeypatch, benchmark, unannotated, train, test):
    from cutsew.data import layouts

    kind = BENCHMARK_SPECS[benchmark, "paper"].kind
    treated = {"unannotated": unannotated} if kind == "coco" else {}
    dataset = load(
        settings_of("x", kind, map(str, range(80 if kind == "coco" else 20)), benchmark=benchmark, **treated)
    ).dataset
    layouts.refuse_incomplete(dataset, {"train": train, "test": test})
    for short in ({"train": train - 1, "test": test}, {"train": train, "test": test + 1}):
        with pytest.raises(UserError, match=f"has {train} and {test}"):
            layouts.refuse_incomplete(dataset, short)
        layouts.refuse_incomplete(dataset.model_copy(update={"allow_incomplete": True}), short)


def test_coco_drops_as_published_unless_told_otherwise():
    of = {"kind": "coco", "root": "x", "benchmark": "coco2014"}
    raw = {"classes": [str(i) for i in range(80)], "dataset": of}
    assert load(raw).dataset.unannotated == "drop"
    assert load({**raw, "dataset": {**of, "unannotated": "keep"}}).dataset.unannotated == "keep"


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            {"kind": "voc", "benchmark": "voc2012", "protocol": "common"},
            "has no protocol common; set `protocol` to paper",
        ),
        ({"kind": "coco", "benchmark": "voc2012"}, "has layout voc; set `kind: voc`"),
        (
            {"kind": "voc", "benchmark": "voc2012", "voc": {"train": "trainval"}},
            "reads the lists train and val, not trainval",
        ),
        ({"kind": "voc", "unannotated": "drop"}, "is a setting of kind coco or nus, and dataset.kind is voc"),
        ({"kind": "nus", "benchmark": "nuswide"}, "reads lists that are no part of its release; name them"),
        ({"kind": "nus", "benchmark": "nuswide", "protocol": "common"}, "classes: 3 of the 81 of nuswide"),
        ({"kind": "coco", "benchmark": "coco2014"}, "classes: 3 of the 80 of coco2014"),
    ],
)
def test_settings_that_are_not_the_benchmarks(dataset, message):
    with pytest.raises(UserError, match=message):
        load({"classes": CLASSES, "dataset": {"root": "x", **dataset}})


@pytest.mark.parametrize("kind", ["coco", "nus"])
def test_fingerprints_notice_edits(request, kind):
    root = request.getfixturevalue(f"{kind}_root")
    config = load(settings_of(root, kind))
    before = listing_fingerprint(config), truth_fingerprint(config)
    assert (listing_fingerprint(config), truth_fingerprint(config)) == before
    image = next(root.rglob("*.jpg"))
    image.write_bytes(image.read_bytes() + b" ")
    assert listing_fingerprint(config) != before[0] and truth_fingerprint(config) == before[1]
    labels = next(root.rglob("instances_train2014.json" if kind == "coco" else "AllLabels/*.txt"))
    labels.write_text(labels.read_text() + "\n")
    assert truth_fingerprint(config) != before[1]


def test_concepts_and_classes_are_as_many_as_published():
    assert len(set(NUS_CONCEPTS.split())) == BENCHMARK_SPECS["nuswide", "common"].classes
    assert len(set(VOC_CLASSES.split())) == BENCHMARK_SPECS["voc2007", "paper"].classes


@pytest.mark.shared
@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/voc-real")
def test_real_images_have_the_labels_of_their_annotations(tmp_path):
    images = list_images(load(settings_of(REAL, "voc", VOC_CLASSES.split())).dataset)
    assert images["split"].value_counts().to_dict() == {"train": 648, "test": 264}
    write_manifest(tmp_path / "images.parquet", images.assign(width=1, height=1, bytes=1, digest="0", shard=0))
    out = tmp_path / "truth.parquet"
    raw = Plan(settings_of(REAL, "voc", VOC_CLASSES.split())).settings(DEFAULT, "truth")
    truth(tmp_path / "images.parquet", out, settings=raw)
    labels = pd.read_parquet(out).set_index("id")
    assert len(labels) == 912
    for name, row in labels.iterrows():
        path = REAL / "Annotations" / f"{name}.xml"
        plain = {thing.findtext("name") for thing in ET.fromstring(path.read_bytes()).findall("object")}
        assert {label for label in labels.columns if row[label] == 1} == plain, name
        assert {thing.name for thing in read_annotation(path)} == plain, name
