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
    for place in (predictions, module):
        monkeypatch.setattr(place, "IMAGES_AT_ONCE", 4)  # several slices, the last one not full


def call(*arguments):
    app = typer.Typer()
    app.command()(labels)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def expected(folder, names):
    """Probabilities of some photos from the Zarr of each one's last stage, by id."""
    found = {}
    for zarr in names:
        z = xarray.open_zarr(folder / f"{zarr}.zarr", consolidated=False)["z"]
        p = 1 / (1 + np.exp(-z.values.astype(np.float64)))
        found |= dict(zip(z["image"].values.tolist(), p, strict=True))
    return found


def named(p, threshold=0.5):
    return [int(c) for c in np.argsort(-p) if p[c] >= threshold]


def test_fiftyone_lists_several_labels_a_photo(base, tmp_path):
    done = call(base, tmp_path / "labels.json", "--format", "fiftyone")
    told = json.loads((tmp_path / "labels.json").read_text())
    photos = read_manifest(base / "images.parquet").set_index("path")["id"]
    wanted = expected(base, ["refined", "scores"])
    assert told["classes"] == CLASSES and set(told["labels"]) == set(photos.index) and len(photos) == 14
    for path, found in told["labels"].items():
        p = wanted[photos[path]]
        assert [label["label"] for label in found] == named(p)
        assert [label["confidence"] for label in found] == pytest.approx([p[c] for c in named(p)], abs=1e-6)
    count = sum(map(len, told["labels"].values()))
    assert f"14 photos, {count} labels (train: refined, test: student)" in done.stdout and count > 5


def test_coco_holds_image_level_annotations(base, tmp_path):
    call(base, tmp_path / "coco.json", "--format", "coco", "--stage", "pseudo")
    told = json.loads((tmp_path / "coco.json").read_text())
    images = read_manifest(base / "images.parquet")
    p_of = expected(base, ["pseudo"])
    assert [image["id"] for image in told["images"]] == (
        images.sort_values("split", ascending=False)["row"] + 1
    ).tolist()
    by_id = {image["id"]: image for image in told["images"]}
    for row in images.to_dict("records"):
        image = by_id[row["row"] + 1]
        assert (image["photo"], image["width"], image["height"]) == (row["id"], row["width"], row["height"])
        mine = [a for a in told["annotations"] if a["image_id"] == image["id"]]
        assert [a["category_id"] - 1 for a in mine] == named(p_of[row["id"]])
        for a in mine:
            assert a["bbox"] == [0, 0, row["width"], row["height"]] and a["area"] == row["width"] * row["height"]
            assert a["iscrowd"] == 0 and a["segmentation"] == []
            assert a["score"] == pytest.approx(p_of[row["id"]][a["category_id"] - 1], abs=1e-6)
    assert [c["name"] for c in told["categories"]] == CLASSES and [c["id"] for c in told["categories"]] == [1, 2, 3]
    assert [a["id"] for a in told["annotations"]] == list(range(1, len(told["annotations"]) + 1))
    assert told["info"]["stages"] == {"train": "pseudo", "test": "pseudo"}


def test_cleanlab_gets_arrays_without_pickles(base, tmp_path):
    call(base, tmp_path / "l.npz", "--format", "cleanlab", "--stage", "fused", "--probabilities", "student")
    with np.load(tmp_path / "l.npz", allow_pickle=False) as told:
        held_out = read_manifest(base / "images.parquet", split="test")["id"].tolist()
        assert told["ids"].tolist() == held_out and told["classes"].tolist() == CLASSES
        assert told["pred_probs"].dtype == np.float32 and told["pred_probs"].shape == (3, 3)
        scores = expected(base, ["scores"])
        assert told["pred_probs"] == pytest.approx(np.stack([scores[name] for name in held_out]), abs=1e-6)
        given = [part.tolist() for part in np.split(told["labels"], told["ends"][:-1])]
    fused = expected(base, ["fused"])
    assert given == [sorted(named(fused[name])) for name in held_out]


def test_slices_join_to_the_whole(base, tmp_path):
    call(base, tmp_path / "l.npz", "--format", "cleanlab", "--threshold", "0.3", "--split", "train")
    with np.load(tmp_path / "l.npz", allow_pickle=False) as told:
        p_of = expected(base, ["refined"])
        assert told["pred_probs"] == pytest.approx(np.stack([p_of[name] for name in told["ids"]]), abs=1e-6)
        given = [part.tolist() for part in np.split(told["labels"], told["ends"][:-1])]
        assert given == [sorted(named(p_of[name], 0.3)) for name in told["ids"]] and len(given) == 11


def test_photos_that_nobody_scored_are_left_out(tmp_path, caplog):
    base = make_world(tmp_path / "results" / "tiny" / "default")
    make_logits(base, unscored=True)
    make_labels(base, base)
    measure(base, base, student=False, truth=False)
    chosen = choose(Run(base), None, None)
    assert chosen.stages == {"train": "pseudo", "test": "fused"} and chosen.left_out == 1
    assert "i01" not in set(chosen.photos["id"]) and len(chosen.photos) == 13
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


def test_photos_without_files_are_not_for_fiftyone(base, tmp_path):
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


# Corrections by a human. Of training photo i00 cat is set and bee crossed out; of held-out photo i01, ant and bee are.


@pytest.fixture(scope="module")
def corrected(tmp_path_factory):
    base = make_base(tmp_path_factory.mktemp("corrected"))
    make_corrections(base, "i00,cat,1,Ada,", "i00,bee,0,Ada,", "i01,ant,1,Bo,", "i01,bee,0,Bo,")
    return base


SAID = {"i00": {"cat": 1, "bee": 0}, "i01": {"ant": 1, "bee": 0}}


def marked(said, p, threshold):
    """Classes that a photo is to have and whether a human says so."""
    found = {name: False for c, name in enumerate(CLASSES) if p[c] >= threshold}
    found |= {name: True for name, present in said.items() if present}
    return {name: by for name, by in found.items() if said.get(name) != 0}


@pytest.mark.parametrize("stage", [None, "fused"])
@pytest.mark.parametrize("threshold", [0, 0.5, 1])
def test_corrections_win_in_coco_and_are_marked(corrected, tmp_path, stage, threshold):
    options = ["--threshold", threshold, *(["--stage", stage] if stage else [])]
    done = call(corrected, tmp_path / "l.json", "--format", "coco", *options)
    assert done.stdout.rstrip().endswith("; 4 set or crossed out by a human")
    told = json.loads((tmp_path / "l.json").read_text())
    p_of = expected(corrected, [stage] if stage else ["refined", "scores"])
    for image in told["images"]:
        name = image["photo"]
        mine = [a for a in told["annotations"] if a["image_id"] == image["id"]]
        found = {CLASSES[a["category_id"] - 1]: a.get("source") == "human" for a in mine}
        assert found == marked(SAID.get(name, {}), p_of[name], threshold)
        assert all(a["score"] == 1 for a in mine if "source" in a)
        assert image.get("corrections") == SAID.get(name)
    assert told["info"]["corrections"] == {"labels": 4, "by": ["Ada", "Bo"]}


def test_corrections_win_in_fiftyone_and_are_marked(corrected, tmp_path):
    call(corrected, tmp_path / "l.json", "--format", "fiftyone", "--threshold", "0")
    told = json.loads((tmp_path / "l.json").read_text())
    photos = read_manifest(corrected / "images.parquet").set_index("path")["id"]
    p_of = expected(corrected, ["refined", "scores"])
    for path, found in told["labels"].items():
        by = {CLASSES[x["label"]]: x.get("attributes") == {"source": "human"} for x in found}
        assert by == marked(SAID.get(photos[path], {}), p_of[photos[path]], 0)
        assert all(x["confidence"] == 1 for x in found if "attributes" in x)
    assert {photos[path]: said for path, said in told["corrections"].items()} == SAID


def test_corrections_win_in_cleanlab_and_leave_the_models_probabilities(corrected, tmp_path):
    call(corrected, tmp_path / "l.npz", "--format", "cleanlab", "--threshold", "0")
    p_of = expected(corrected, ["refined", "scores"])
    with np.load(tmp_path / "l.npz", allow_pickle=False) as told:
        ids = told["ids"].tolist()
        assert told["pred_probs"] == pytest.approx(np.stack([p_of[name] for name in ids]), abs=1e-6)
        given = dict(zip(ids, np.split(told["labels"], told["ends"][:-1]), strict=True))
        rows = [(ids[n], CLASSES[c], int(present)) for n, c, present in told["corrections"]]
    assert sorted(rows) == sorted((name, c, present) for name, said in SAID.items() for c, present in said.items())
    for name, found in given.items():
        assert {CLASSES[c] for c in found} == set(marked(SAID.get(name, {}), p_of[name], 0))


def test_without_corrections_the_models_labels_are_given(corrected, base, tmp_path):
    done = call(corrected, tmp_path / "l.npz", "--format", "cleanlab", "--no-corrections")
    call(base, tmp_path / "other.npz", "--format", "cleanlab")
    with np.load(tmp_path / "l.npz") as mine, np.load(tmp_path / "other.npz") as others:
        assert all(np.array_equal(mine[name], others[name]) for name in ("labels", "ends", "corrections"))
        assert mine["corrections"].shape == (0, 3) and "human" not in done.stdout


def test_only_the_corrections_of_the_photos_that_are_given_are_counted(corrected, tmp_path):
    done = call(corrected, tmp_path / "l.json", "--format", "fiftyone", "--split", "test")
    assert "; 2 set or crossed out by a human" in done.stdout
    assert len(json.loads((tmp_path / "l.json").read_text())["corrections"]) == 1


def test_corrections_of_photos_that_are_left_out_are_told(tmp_path, caplog):
    base = make_world(tmp_path / "results" / "tiny" / "default")
    make_logits(base, unscored=True)
    make_labels(base, base)
    measure(base, base, student=False, truth=False)
    make_corrections(base, "i01,ant,1,Bo,", "i00,cat,1,Ada,")
    done = call(base, tmp_path / "l.json", "--format", "coco")
    count = len(json.loads((tmp_path / "l.json").read_text())["annotations"])
    assert f"13 photos, {count} labels (" in done.stdout and count > 1
    assert "1 corrections of those images are excluded with them" in caplog.text


def test_an_edited_file_of_corrections_is_warned_of(tmp_path, caplog):
    base = make_base(tmp_path)
    make_corrections(base, "i00,cat,1,Ada,")
    call(base, tmp_path / "l.json", "--format", "coco")
    assert "has changed" not in caplog.text
    (base.parent / "audit.csv").write_text("image,class,present\n")
    call(base, tmp_path / "l.json", "--format", "coco")
    assert "audit.csv has changed since these corrections were read; run snakemake to apply it" in caplog.text
