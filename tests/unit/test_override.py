"""A human's corrections: the numbers, the CSV, the stage, and that every table names them."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutsew.artefacts.logits import label_spec
from cutsew.artefacts.reading import array_of, open_group, read
from cutsew.artefacts.store import write_group
from cutsew.config.method import Score
from cutsew.data.overrides import read_overrides
from cutsew.errors import UserError
from cutsew.numerics.override import LEFT
from cutsew.numerics.override import override as numerics
from cutsew.stages.evaluate import _name_corrections
from cutsew.stages.override import override as stage

CLASSES = ["cat", "dog", 'say, "bus"']
SETTINGS = {"labels": {"overrides": "audit.csv"}, "score": Score().model_dump()}
SURE = np.log((1 - 1e-6) / 1e-6)  # 13.8155


def test_a_worked_example():
    z = np.array([[1.5, -2.0, 0.25]], dtype=np.float32)
    made, count = numerics(z, np.array([[1, 0, -1]], dtype=np.int8), 1e-6)
    assert made.tolist() == [[pytest.approx(SURE), -2.0, pytest.approx(-SURE)]]
    assert count == 2
    assert 1 / (1 + np.exp(-np.float64(made[0, 0]))) == pytest.approx(1 - 1e-6, abs=1e-9)


SHAPE = (3, 4)


@given(
    hnp.arrays(np.float32, SHAPE, elements=st.floats(-30, 30, width=32)),
    hnp.arrays(np.int8, SHAPE, elements=st.sampled_from([-1, 0, 1])),
)
def test_only_what_was_said_changes(z, said):
    made, count = numerics(z, said, 1e-6)
    assert np.array_equal(made[said == LEFT], z[said == LEFT])
    assert (np.sign(made[said != LEFT]) == said[said != LEFT]).all()
    assert count == (said != LEFT).sum()


# The CSV


def csv(tmp_path, *lines, head="image,class,present,by,at"):
    path = tmp_path / "audit.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def test_it_reads_what_the_page_writes(tmp_path):
    path = csv(tmp_path, 'a.jpg,"say, ""bus""",1,Ada,2026-01-02T03:04:05Z', "b.jpg,cat,0,Ada,2026-01-03T00:00:00Z")
    table = read_overrides(path)
    assert table["class"].tolist() == ['say, "bus"', "cat"]
    assert table["present"].tolist() == [1, -1]
    assert table["by"].tolist() == ["Ada", "Ada"]


def test_who_and_when_may_be_missing_and_a_row_may_come_twice(tmp_path):
    table = read_overrides(csv(tmp_path, "a.jpg,cat,1", "a.jpg,cat,1", head="image,class,present"))
    assert table.to_dict("list") == {"image": ["a.jpg"], "class": ["cat"], "present": [1], "by": [""], "at": [""]}


@pytest.mark.parametrize(
    ("lines", "head", "message"),
    [
        (["a.jpg,cat,yes"], "image,class,present", "line 2: present is 'yes'; write 1 or 0"),
        (["a.jpg,cat"], "image,class,present", "line 2: present is ''"),
        (["a.jpg,cat,1", "a.jpg,cat,0"], "image,class,present", "line 3: cat of a.jpg is set to 1 and to 0"),
        (["a.jpg,cat,1"], "photo,class,present", "needs the columns image, class and present"),
        (["a.jpg,cat,1,x"], "image,class,present", "not a readable CSV"),
        (['a.jpg,"cat,1'], "image,class,present", "not a readable CSV"),
    ],
)
def test_a_bad_csv_is_refused_in_one_line(tmp_path, lines, head, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_overrides(csv(tmp_path, *lines, head=head))
    assert str(caught.value).startswith("labels.overrides: ") and "\n" not in str(caught.value)


def test_a_missing_csv_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"labels.overrides: .*gone.csv does not exist"):
        read_overrides(tmp_path / "gone.csv")


# The stage


@pytest.fixture
def run(tmp_path):
    """Five photos in chunks of two, and their labels."""
    ids = [f"{i}.jpg" for i in range(5)]
    images = pd.DataFrame({"id": ids, "path": ids, "width": 1, "height": 1, "bytes": 1, "digest": ids})
    images.assign(split="train", shard=0).to_parquet(tmp_path / "images.parquet", index=False)
    z = np.arange(15, dtype=np.float32).reshape(5, 3) - 7
    write_group(tmp_path / "pseudo.zarr", {"z": (label_spec(5, 3, 2), z)}, {"image": ids, "class": CLASSES})
    return tmp_path


def apply(run, corrections):
    stage(run / "images.parquet", run / "pseudo.zarr", corrections, run / "overridden.zarr", SETTINGS)


def test_the_stage_changes_exactly_the_named_labels(run):
    apply(
        run,
        csv(run, "3.jpg,cat,1,Ada,2026-01-02", '3.jpg,"say, ""bus""",0,Bo,2026-01-01', "0.jpg,dog,1,Ada,2026-01-03"),
    )
    before, after = (read(array_of(open_group(run / f"{name}.zarr"), "z")) for name in ("pseudo", "overridden"))
    expected = before.copy()
    expected[3, 0], expected[3, 2], expected[0, 1] = SURE, -SURE, SURE
    assert np.allclose(after, expected, atol=1e-5)
    said = read(array_of(open_group(run / "overridden.zarr"), "overridden"))
    assert said[3].tolist() == [1, 0, -1] and np.count_nonzero(said) == 3
    record = json.loads((run / "overridden.json").read_text())
    facts = {"corrections": 3, "photos": 2, "by": ["Ada", "Bo"], "from": "2026-01-01", "to": "2026-01-03"}
    assert record["facts"] == facts
    assert "audit.csv" in record["inputs"]


@pytest.mark.parametrize(("line", "message"), [("9.jpg,cat,1", "image '9.jpg'"), ("1.jpg,cow,1", "class 'cow'")])
def test_what_the_run_does_not_have_is_refused(run, line, message):
    with pytest.raises(UserError, match=f"audit.csv names {message}"):
        apply(run, csv(run, line, head="image,class,present"))
    assert not (run / "overridden.zarr").exists()


def test_an_empty_file_changes_nothing(run):
    apply(run, csv(run))
    before, after = (read(array_of(open_group(run / f"{name}.zarr"), "z")) for name in ("pseudo", "overridden"))
    assert np.array_equal(before, after)


def test_the_table_says_which_stages_rest_on_them(run):
    apply(run, csv(run, "3.jpg,cat,1", head="image,class,present"))
    rows = [{"stage": name} for name in ("zero_shot", "pseudo", "overridden", "refined", "student")]
    _name_corrections(rows, run / "overridden.zarr" / "zarr.json")
    assert [row["by_hand"] for row in rows] == [0, 0, 1, 1, 1]
