"""A human's corrections: the numbers, the CSV, the stages, and that they win wherever labels are given."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutsew.config.method import SoftmaxScoringConfig
from cutsew.data.corrections_csv import match_classes, match_images, read_overrides, split_of_corrections
from cutsew.errors import UserError
from cutsew.method.correct import LEFT
from cutsew.method.correct import override as numerics
from cutsew.stages.corrections import corrections as read_stage
from cutsew.stages.evaluate import _name_corrections
from cutsew.stages.override import override as stage
from cutsew.storage.label_corrections import Corrections, digest_of, in_words, read_corrections
from cutsew.storage.manifest import write_manifest
from cutsew.storage.predictions import FINAL, Final, StagePredictions
from cutsew.storage.zarr_layout import label_spec
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.storage.zarr_writer import write_group

CLASSES = ["cat", "dog", 'say, "bus"']
SETTINGS = {"score": SoftmaxScoringConfig().model_dump()}
READING = {"labels": {"overrides": "audit.csv"}, "classes": CLASSES, "student": {"kind": "open_clip"}}
SURE = np.log((1 - 1e-6) / 1e-6)  # 13.8155


def test_a_worked_example():
    z = np.array([[1.5, -2.0, 0.25]], dtype=np.float32)
    result, count = numerics(z, np.array([[1, 0, -1]], dtype=np.int8), 1e-6)
    assert result.tolist() == [[pytest.approx(SURE), -2.0, pytest.approx(-SURE)]]
    assert count == 2
    assert 1 / (1 + np.exp(-np.float64(result[0, 0]))) == pytest.approx(1 - 1e-6, abs=1e-9)


SHAPE = (3, 4)


@given(
    hnp.arrays(np.float32, SHAPE, elements=st.floats(-30, 30, width=32)),
    hnp.arrays(np.int8, SHAPE, elements=st.sampled_from([-1, 0, 1])),
)
def test_only_what_was_said_changes(z, said):
    result, count = numerics(z, said, 1e-6)
    assert np.array_equal(result[said == LEFT], z[said == LEFT])
    assert (np.sign(result[said != LEFT]) == said[said != LEFT]).all()
    assert count == (said != LEFT).sum()


# The CSV


def csv(tmp_path, *lines, head="image,class,present,by,at"):
    path = tmp_path / "audit.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def test_it_reads_what_the_page_writes(tmp_path):
    path = csv(tmp_path, 'a.jpg,"say, ""bus""",1,Ada,2026-01-02T03:04:05Z', "b.jpg,cat,0,Ada,2026-01-03T00:00:00Z")
    table = read_overrides(path, CLASSES)
    assert table["class"].tolist() == ['say, "bus"', "cat"]
    assert table["present"].tolist() == [1, 0] and table["line"].tolist() == [2, 3]
    assert table["by"].tolist() == ["Ada", "Ada"]


def test_who_and_when_may_be_missing_and_a_row_may_come_twice(tmp_path):
    table = read_overrides(csv(tmp_path, "a.jpg,cat,1", "a.jpg,cat,1", head="image,class,present"), CLASSES)
    assert table.drop(columns="line").to_dict("list") == {
        "image": ["a.jpg"],
        "class": ["cat"],
        "present": [1],
        "by": [""],
        "at": [""],
    }


@pytest.mark.parametrize(
    ("lines", "head", "message"),
    [
        (["a.jpg,cat,yes"], "image,class,present", "line 2, column present: 'yes'; write 1 or 0"),
        (["a.jpg,cat"], "image,class,present", "line 2, column present: ''"),
        (["a.jpg,cat,1", "b.jpg,cat,1", "a.jpg,cat,0"], "image,class,present", "lines 2 and 4, column present: 'cat'"),
        (["a.jpg,cat,1"], "photo,class,present", "has no column 'image'"),
        (["a.jpg,cat,1,x"], "image,class,present", "audit.csv"),
        (['a.jpg,"cat,1'], "image,class,present", "not a readable CSV"),
    ],
)
def test_a_bad_csv_is_refused_in_one_line(tmp_path, lines, head, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_overrides(csv(tmp_path, *lines, head=head), CLASSES)
    assert str(caught.value).startswith("labels.overrides: ") and "\n" not in str(caught.value)


def test_a_missing_csv_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"labels.overrides: .*gone.csv does not exist"):
        read_overrides(tmp_path / "gone.csv", CLASSES)


COMPOSED, DECOMPOSED = "caf\u00e9.jpg", "cafe\u0301.jpg"


@pytest.mark.parametrize(("written", "known"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_accents_may_be_composed_or_not(tmp_path, written, known):
    path = csv(tmp_path, f"{written},cat,1", head="image,class,present")
    assert match_images(read_overrides(path, CLASSES), [known, "x.jpg"], path)["image"].tolist() == [known]
    assert match_classes(read_overrides(path, CLASSES).assign(**{"class": written}), [known], path)[
        "class"
    ].tolist() == [known]


def test_contradictions_are_found_between_two_spellings_of_a_image(tmp_path):
    path = csv(tmp_path, f"{COMPOSED},cat,1", f"{DECOMPOSED},cat,0", head="image,class,present")
    with pytest.raises(UserError, match="lines 2 and 3, column present: 'cat'"):
        match_images(read_overrides(path, CLASSES), [COMPOSED], path)


def test_two_images_of_one_composed_name_are_told_apart_by_the_exact_one(tmp_path):
    path = csv(tmp_path, f"{DECOMPOSED},cat,1", f"{COMPOSED},cat,0", head="image,class,present")
    assert match_images(read_overrides(path, CLASSES), [COMPOSED, DECOMPOSED], path)["image"].tolist() == [
        DECOMPOSED,
        COMPOSED,
    ]


def test_corrections_of_another_run_are_called_so(tmp_path):
    path = csv(tmp_path, "a.jpg,cat,1", "b.jpg,cat,1", head="image,class,present")
    with pytest.raises(UserError, match=r"audit.csv names none of this dataset's images: line 2 has image 'a.jpg'"):
        match_images(read_overrides(path, CLASSES), ["x.jpg", "y.jpg"], path)


# The stages


@pytest.fixture
def run(tmp_path):
    """Five images in chunks of two, the last of them held out, and their labels."""
    ids = [f"{i}.jpg" for i in range(5)]
    images = pd.DataFrame({"id": ids, "path": ids, "width": 1, "height": 1, "bytes": 1, "digest": ids})
    write_manifest(tmp_path / "images.parquet", images.assign(split=["train"] * 4 + ["test"], shard=0))
    z = np.arange(15, dtype=np.float32).reshape(5, 3) - 7
    write_group(tmp_path / "pseudo.zarr", {"z": (label_spec(5, 3, 2), z)}, {"image": ids, "class": CLASSES})
    return tmp_path


def apply(run, file):
    read_stage(run / "images.parquet", file, run / "corrections.parquet", READING)
    stage(run / "images.parquet", run / "pseudo.zarr", run / "corrections.parquet", run / "overridden.zarr", SETTINGS)


def test_the_stages_change_exactly_the_named_labels_of_training_images(run, caplog):
    caplog.set_level("INFO")
    file = csv(
        run,
        "3.jpg,cat,1,Ada,2026-01-02",
        '3.jpg,"say, ""bus""",0,Bo,2026-01-01',
        "0.jpg,dog,1,Ada,2026-01-03",
        "4.jpg,cat,0,Ada,2026-01-03",
    )
    apply(run, file)
    before, after = (read(array_of(open_group(run / f"{name}.zarr"), "z")) for name in ("pseudo", "overridden"))
    expected = before.copy()
    expected[3, 0], expected[3, 2], expected[0, 1] = SURE, -SURE, SURE
    assert np.allclose(after, expected, atol=1e-5)
    stated = read(array_of(open_group(run / "overridden.zarr"), "overridden"))
    assert stated[3].tolist() == [1, 0, -1] and np.count_nonzero(stated) == 3
    facts = json.loads((run / "corrections.json").read_text())["facts"]
    counts = {"corrections": 4, "images": 3, "train": 3, "test": 1}
    assert facts == {**counts, "by": ["Ada", "Bo"], "from": "2026-01-01", "to": "2026-01-03"}
    assert "audit.csv" in json.loads((run / "corrections.json").read_text())["inputs"]
    record = json.loads((run / "overridden.json").read_text())
    assert record["facts"]["corrections"] == 3 and record["facts"]["images"] == 2
    assert "3 labels of training images corrected, from which training starts, and 1 of held-out" in caplog.text
    assert "override: corrections of held-out images, which do not affect training: 1" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("9.jpg,cat,1", "line 3, column image: '9.jpg' is not an image of this run (did you mean 4.jpg?)"),
        ("1.jpg,cow,1", "line 3, column class: 'cow'"),
    ],
)
def test_what_the_run_does_not_have_is_refused(run, line, message):
    with pytest.raises(UserError, match=re.escape(message)):
        apply(run, csv(run, "4.jpg,cat,1", line, head="image,class,present"))
    assert not (run / "corrections.parquet").exists() and not (run / "overridden.zarr").exists()


def test_an_empty_file_changes_nothing(run):
    apply(run, csv(run))
    before, after = (read(array_of(open_group(run / f"{name}.zarr"), "z")) for name in ("pseudo", "overridden"))
    assert np.array_equal(before, after)


def test_the_table_says_which_stages_rest_on_them(run):
    apply(run, csv(run, "3.jpg,cat,1", "4.jpg,cat,1", head="image,class,present"))
    rows = [{"stage": name} for name in ("zero_shot", "pseudo", "overridden", "refined", "student")]
    _name_corrections(rows, run / "overridden.zarr" / "zarr.json")
    assert [row["by_hand"] for row in rows] == [0, 0, 1, 1, 1]


# What they do elsewhere


def test_the_digest_is_of_what_was_said_not_of_who_said_it_when_or_where(tmp_path):
    rows = ["a.jpg,cat,1,Ada,2026", "b.jpg,dog,0,Ada,2026"]
    digests = {
        digest_of(read_overrides(csv(tmp_path, *lines), CLASSES)) for lines in (rows, rows[::-1], [*rows, rows[0]])
    }
    digests |= {digest_of(read_overrides(csv(tmp_path, "a.jpg,cat,1,Bo,", "b.jpg,dog,0"), CLASSES))}
    assert len(digests) == 1
    assert digest_of(read_overrides(csv(tmp_path, "a.jpg,cat,0", "b.jpg,dog,0"), CLASSES)) not in digests
    assert digest_of(read_overrides(csv(tmp_path), CLASSES)) == ""


def test_the_split_of_corrected_images_is_what_the_manifest_says(run):
    path = csv(run, "4.jpg,cat,1", "gone.jpg,cat,1", "0.jpg,cat,0", head="image,class,present")
    result = split_of_corrections(path, run / "images.parquet", CLASSES)
    assert result[["image", "split", "present"]].to_numpy().tolist() == [["4.jpg", "test", 1], ["0.jpg", "train", 0]]


def test_final_labels_are_the_last_stages_with_corrections(run):
    apply(run, csv(run, "0.jpg,cat,1", "4.jpg,dog,0", head="image,class,present"))
    stated = read_corrections(run / "corrections.parquet", CLASSES)
    pseudo = StagePredictions("pseudo", run / "pseudo.zarr")
    split_of = {f"{i}.jpg": "test" if i == 4 else "train" for i in range(5)}
    final = Final({"train": pseudo, "test": pseudo}, split_of, stated)
    ids = ["4.jpg", "1.jpg", "0.jpg"]
    expected = pseudo.read(ids)
    expected[0, 1], expected[2, 0] = -SURE, SURE
    assert final.stage == FINAL and final.read(ids) == pytest.approx(expected, abs=1e-5)


def test_corrections_of_other_classes_are_refused(run):
    apply(run, csv(run, "0.jpg,cat,1", head="image,class,present"))
    with pytest.raises(UserError, match="corrects 'cat', which is not a class of these labels"):
        read_corrections(run / "corrections.parquet", ["cow", "dog"])


def test_no_corrections_are_false_and_say_nothing():
    table = pd.DataFrame({"image": [], "split": [], "class": [], "present": [], "by": [], "at": []})
    assert not Corrections(table, CLASSES) and not Corrections(table, CLASSES).said(["a"]).any()


@pytest.mark.parametrize(
    ("counts", "student", "told"),
    [
        ((0, 1), True, "1 label corrected, all of held-out images: they train nothing"),
        ((2, 0), True, "2 labels of training images corrected, from which training starts; exports"),
        ((2, 3), True, "from which training starts, and 3 of held-out images, which train nothing"),
        ((0, 0), True, "no label corrected: no row of the file changes a label"),
        ((2, 3), False, "5 labels corrected; no student is trained (student.kind: none)"),
    ],
)
def test_it_is_said_what_corrections_lead_to(counts, student, told):
    assert told in in_words(*counts, student=student)
