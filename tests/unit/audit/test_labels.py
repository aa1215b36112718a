"""Labels in the files of other tools: every value held against the Zarrs, every file against what opens it."""

import json

import numpy as np
import pytest
import typer
import xarray
from audited_run import make_base, make_corrections, make_labels, make_logits, measure
from sewing_world import CLASSES, make_world
from typer.testing import CliRunner

from cutsew.audit import label_export as module
from cutsew.audit.label_export import choose
from cutsew.audit.run import Run
from cutsew.commands.labels import labels
from cutsew.errors import UserError
from cutsew.storage import predictions
from cutsew.storage.manifest import read_manifest


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("labels"))


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(predictions, "IMAGES_AT_ONCE", 4)  # several slices, the last one not full


def call(*arguments):
    app = typer.Typer()
    app.command()(labels)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def expected(folder, names):
    """Probabilities of some images from the Zarr of each one's last stage, by id."""
    result = {}
    for zarr in names:
        z = xarray.open_zarr(folder / f"{zarr}.zarr", consolidated=False)["z"]
        p = 1 / (1 + np.exp(-z.values.astype(np.float64)))
        result |= dict(zip(z["image"].values.tolist(), p, strict=True))
    return result


def named(p, threshold=0.5):
    return [int(c) for c in np.argsort(-p) if p[c] >= threshold]


def test_fiftyone_lists_several_labels_a_image(base, tmp_path):
    done = call(base, tmp_path / "labels.json", "--format", "fiftyone")
    reported = json.loads((tmp_path / "labels.json").read_text())
    images = read_manifest(base / "images.parquet").set_index("path")["id"]
    requested = expected(base, ["refined", "scores"])
    assert reported["classes"] == CLASSES and set(reported["labels"]) == set(images.index) and len(images) == 14
    for path, result in reported["labels"].items():
        p = requested[images[path]]
        assert [label["label"] for label in result] == named(p)
        assert [label["confidence"] for label in result] == pytest.approx([p[c] for c in named(p)], abs=1e-6)
    count = sum(map(len, reported["labels"].values()))
    rule = "rule fixed: a class is a label from probability 0.5 on"
    assert f"14 images, {count} labels (train: refined, test: student; {rule})" in done.stdout and count > 5


def test_coco_holds_image_level_annotations(base, tmp_path):
    call(base, tmp_path / "coco.json", "--format", "coco", "--stage", "pseudo")
    result = json.loads((tmp_path / "coco.json").read_text())
    images = read_manifest(base / "images.parquet")
    p_of = expected(base, ["pseudo"])
    assert [image["id"] for image in result["images"]] == (
        images.sort_values("split", ascending=False)["row"] + 1
    ).tolist()
    by_id = {image["id"]: image for image in result["images"]}
    for row in images.to_dict("records"):
        image = by_id[row["row"] + 1]
        assert (image["image"], image["width"], image["height"]) == (row["id"], row["width"], row["height"])
        own_values = [a for a in result["annotations"] if a["image_id"] == image["id"]]
        assert [a["category_id"] - 1 for a in own_values] == named(p_of[row["id"]])
        for a in own_values:
            assert a["bbox"] == [0, 0, row["width"], row["height"]] and a["area"] == row["width"] * row["height"]
            assert a["iscrowd"] == 0 and a["segmentation"] == []
            assert a["score"] == pytest.approx(p_of[row["id"]][a["category_id"] - 1], abs=1e-6)
    assert [c["name"] for c in result["categories"]] == CLASSES and [c["id"] for c in result["categories"]] == [1, 2, 3]
    assert [a["id"] for a in result["annotations"]] == list(range(1, len(result["annotations"]) + 1))
    assert result["info"]["stages"] == {"train": "pseudo", "test": "pseudo"}


def test_cleanlab_gets_arrays_without_pickles(base, tmp_path):
    call(base, tmp_path / "l.npz", "--format", "cleanlab", "--stage", "fused", "--probabilities", "student")
    with np.load(tmp_path / "l.npz", allow_pickle=False) as result:
        held_out = read_manifest(base / "images.parquet", split="test")["id"].tolist()
        assert result["ids"].tolist() == held_out and result["classes"].tolist() == CLASSES
        assert result["pred_probs"].dtype == np.float32 and result["pred_probs"].shape == (3, 3)
        scores = expected(base, ["scores"])
        assert result["pred_probs"] == pytest.approx(np.stack([scores[name] for name in held_out]), abs=1e-6)
        given = [part.tolist() for part in np.split(result["labels"], result["ends"][:-1])]
    fused = expected(base, ["fused"])
    assert given == [sorted(named(fused[name])) for name in held_out]


def test_slices_join_to_the_whole(base, tmp_path):
    call(base, tmp_path / "l.npz", "--format", "cleanlab", "--threshold", "0.3", "--split", "train")
    with np.load(tmp_path / "l.npz", allow_pickle=False) as result:
        p_of = expected(base, ["refined"])
        assert result["pred_probs"] == pytest.approx(np.stack([p_of[name] for name in result["ids"]]), abs=1e-6)
        given = [part.tolist() for part in np.split(result["labels"], result["ends"][:-1])]
        assert given == [sorted(named(p_of[name], 0.3)) for name in result["ids"]] and len(given) == 11


def test_images_that_nobody_scored_are_left_out(tmp_path, caplog):
    base = make_world(tmp_path / "results" / "tiny" / "default")
    make_logits(base, unscored=True)
    make_labels(base, base)
    measure(base, base, student=False, truth=False)
    chosen = choose(Run(base), None, None)
    assert chosen.stages == {"train": "pseudo", "test": "fused"} and chosen.num_excluded == 1
    assert "i01" not in set(chosen.images["id"]) and len(chosen.images) == 13
    call(base, tmp_path / "l.json", "--format", "coco")
    assert "1 images without finite labels are excluded" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("l.json", "--format", "coco", "--stage", "refind"),
            "--stage: refind is not a stage of default; did you mean ref",
        ),
        (("l.json", "--format", "coco", "--stage", "refined", "--split", "test"), "no labels of refined for test"),
        (("l.npz", "--format", "coco"), "l.npz: the name must end in .json"),
        (("l.json", "--format", "coco", "--probabilities", "fused"), "--probabilities: coco stores each"),
        (("l.npz", "--format", "cleanlab", "--stage", "refined", "--probabilities", "student"), "that have both"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(base, tmp_path, options, said):
    error = call(base, tmp_path / options[0], *options[1:]).exception
    assert isinstance(error, UserError) and said in str(error) and "\n" not in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_file_is_refused_in_one_line(base, tmp_path):
    tmp_path.joinpath("l.json").mkdir()
    error = call(base, tmp_path / "l.json", "--format", "coco").exception
    assert isinstance(error, UserError) and "l.json: is a folder where a file is needed; move it away" in str(error)


def test_images_without_files_are_not_for_fiftyone(base, tmp_path):
    run = Run(base)
    run.images["path"] = ""
    chosen = choose(run, None, None)
    from cutsew.audit.label_formats import write_coco, write_fiftyone

    with pytest.raises(UserError, match="dataset.kind ids"):
        write_fiftyone(tmp_path / "l.json", chosen)
    run.images["path"] = "gone.jpg"
    with pytest.raises(UserError, match="no such image here"):
        write_fiftyone(tmp_path / "l.json", choose(run, None, None))
    write_coco(tmp_path / "l.json", chosen)
    assert json.loads((tmp_path / "l.json").read_text())["images"][0]["file_name"] == "i00"


@pytest.mark.parametrize("form", ["fiftyone", "coco", "cleanlab"])
def test_nothing_half_written_is_left(base, tmp_path, monkeypatch, form):
    batches = module.Labels.batches

    def broken(self):
        yield next(batches(self))
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Labels, "batches", broken)
    name = "l.npz" if form == "cleanlab" else "l.json"
    tmp_path.joinpath(name).write_text("mine")
    assert call(base, tmp_path / name, "--format", form).exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == [name] and tmp_path.joinpath(name).read_text() == "mine"


# Corrections by a human. Of training image i00 cat is set and bee crossed out; of held-out image i01, ant and bee are.


@pytest.fixture(scope="module")
def corrected(tmp_path_factory):
    base = make_base(tmp_path_factory.mktemp("corrected"))
    make_corrections(base, "i00,cat,1,Ada,", "i00,bee,0,Ada,", "i01,ant,1,Bo,", "i01,bee,0,Bo,")
    return base


SAID = {"i00": {"cat": 1, "bee": 0}, "i01": {"ant": 1, "bee": 0}}


def marked(said, p, threshold):
    """Classes that an image is to have and whether a human says so."""
    result = {name: False for c, name in enumerate(CLASSES) if p[c] >= threshold}
    result |= {name: True for name, present in said.items() if present}
    return {name: by for name, by in result.items() if said.get(name) != 0}


@pytest.mark.parametrize("stage", [None, "fused"])
@pytest.mark.parametrize("threshold", [0, 0.5, 1])
def test_corrections_win_in_coco_and_are_marked(corrected, tmp_path, stage, threshold):
    options = ["--threshold", threshold, *(["--stage", stage] if stage else [])]
    done = call(corrected, tmp_path / "l.json", "--format", "coco", *options)
    assert done.stdout.rstrip().endswith("; 4 set or crossed out by a human")
    reported = json.loads((tmp_path / "l.json").read_text())
    p_of = expected(corrected, [stage] if stage else ["refined", "scores"])
    for image in reported["images"]:
        name = image["image"]
        own_values = [a for a in reported["annotations"] if a["image_id"] == image["id"]]
        result = {CLASSES[a["category_id"] - 1]: a.get("source") == "human" for a in own_values}
        assert result == marked(SAID.get(name, {}), p_of[name], threshold)
        assert all(a["score"] == 1 for a in own_values if "source" in a)
        assert image.get("corrections") == SAID.get(name)
    assert reported["info"]["corrections"] == {"labels": 4, "by": ["Ada", "Bo"]}


def test_corrections_win_in_fiftyone_and_are_marked(corrected, tmp_path):
    call(corrected, tmp_path / "l.json", "--format", "fiftyone", "--threshold", "0")
    reported = json.loads((tmp_path / "l.json").read_text())
    images = read_manifest(corrected / "images.parquet").set_index("path")["id"]
    p_of = expected(corrected, ["refined", "scores"])
    for path, result in reported["labels"].items():
        by = {CLASSES[x["label"]]: x.get("attributes") == {"source": "human"} for x in result}
        assert by == marked(SAID.get(images[path], {}), p_of[images[path]], 0)
        assert all(x["confidence"] == 1 for x in result if "attributes" in x)
    assert {images[path]: stated for path, stated in reported["corrections"].items()} == SAID


def test_corrections_win_in_cleanlab_and_leave_the_models_probabilities(corrected, tmp_path):
    call(corrected, tmp_path / "l.npz", "--format", "cleanlab", "--threshold", "0")
    p_of = expected(corrected, ["refined", "scores"])
    with np.load(tmp_path / "l.npz", allow_pickle=False) as reported:
        ids = reported["ids"].tolist()
        assert reported["pred_probs"] == pytest.approx(np.stack([p_of[name] for name in ids]), abs=1e-6)
        given = dict(zip(ids, np.split(reported["labels"], reported["ends"][:-1]), strict=True))
        rows = [(ids[n], CLASSES[c], int(present)) for n, c, present in reported["corrections"]]
    assert sorted(rows) == sorted((name, c, present) for name, stated in SAID.items() for c, present in stated.items())
    for name, result in given.items():
        assert {CLASSES[c] for c in result} == set(marked(SAID.get(name, {}), p_of[name], 0))


def test_without_corrections_the_models_labels_are_given(corrected, base, tmp_path):
    done = call(corrected, tmp_path / "l.npz", "--format", "cleanlab", "--no-corrections")
    call(base, tmp_path / "other.npz", "--format", "cleanlab")
    with np.load(tmp_path / "l.npz") as own_values, np.load(tmp_path / "other.npz") as others:
        assert all(np.array_equal(own_values[name], others[name]) for name in ("labels", "ends", "corrections"))
        assert own_values["corrections"].shape == (0, 3) and "human" not in done.stdout


def test_only_the_corrections_of_the_images_that_are_given_are_counted(corrected, tmp_path):
    done = call(corrected, tmp_path / "l.json", "--format", "fiftyone", "--split", "test")
    assert "; 2 set or crossed out by a human" in done.stdout
    assert len(json.loads((tmp_path / "l.json").read_text())["corrections"]) == 1


def test_corrections_of_images_that_are_left_out_are_told(tmp_path, caplog):
    base = make_world(tmp_path / "results" / "tiny" / "default")
    make_logits(base, unscored=True)
    make_labels(base, base)
    measure(base, base, student=False, truth=False)
    make_corrections(base, "i01,ant,1,Bo,", "i00,cat,1,Ada,")
    done = call(base, tmp_path / "l.json", "--format", "coco")
    count = len(json.loads((tmp_path / "l.json").read_text())["annotations"])
    assert f"13 images, {count} labels (" in done.stdout and count > 1
    assert "1 corrections of those images are excluded with them" in caplog.text


def test_an_edited_file_of_corrections_is_warned_of(tmp_path, caplog):
    base = make_base(tmp_path)
    make_corrections(base, "i00,cat,1,Ada,")
    call(base, tmp_path / "l.json", "--format", "coco")
    assert "has changed" not in caplog.text
    (base.parent / "audit.csv").write_text("image,class,present\n")
    call(base, tmp_path / "l.json", "--format", "coco")
    assert "audit.csv has changed since these corrections were read; run snakemake to apply it" in caplog.text
