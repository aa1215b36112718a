"""Stage sweep_table: runs side by side, mean and deviation over seeds."""

import json

import pandas as pd
import pytest
from PIL import Image

from cutsew.errors import UserError
from cutsew.pipeline.graph import STAGES
from cutsew.reporting.sweep_plot import is_line
from cutsew.stages.sweep_table import sweep_table

COLUMNS = ["stage", "split", "mAP", "mAP_10", "CF1", "OF1", "inversions", "labels_per_image"]


def write_metrics(path, student=None, fused=80.0, truth=True):
    rows = [["fused", "train", fused, fused, 50.0, 60.0, 7, 1.5]]
    if student is not None:
        rows.append(["student", "test", student, student + 1, 55.0, 65.0, 5, 2.0])
    table = pd.DataFrame(rows, columns=COLUMNS)
    if not truth:
        table[["mAP", "mAP_10", "CF1", "OF1", "inversions"]] = None
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def run(folder, name, seed=9, **settings):
    return {
        "metrics": str(folder / name / "metrics.csv"),
        "variant": name.split("+")[0],
        "settings": {key.replace("__", "."): value for key, value in settings.items()},
        "seed": seed,
    }


def made(folder, runs):
    settings = {"version": 1, "title": "A title with $ in it", "runs": runs}
    sweep_table(folder / "sweeps" / "x" / "table.csv", settings=settings)
    return pd.read_csv(folder / "sweeps" / "x" / "table.csv")


def test_mean_and_deviation_over_seeds_by_hand(tmp_path, capsys):
    for name, student in (("a=0", 60.0), ("a=0+seed=10", 64.0), ("a=1", 70.0), ("a=1+seed=10", 70.0)):
        write_metrics(tmp_path / name / "metrics.csv", student)
    runs = [run(tmp_path, n, s, fuse__alpha=a) for a in (0, 1) for n, s in ((f"a={a}", 9), (f"a={a}+seed=10", 10))]
    table = made(tmp_path, runs)
    assert list(table.columns) == [
        *("variant", "fuse.alpha", "stage", "split", "seeds", "mAP", "mAP_std", "mAP_10", "mAP_10_std"),
        *("CF1", "CF1_std", "OF1", "OF1_std", "inversions", "labels_per_image"),
    ]
    student = table[table["stage"] == "student"]
    assert list(student["fuse.alpha"]) == [0, 1] and list(student["seeds"]) == [2, 2]
    # mean of 60 and 64, and sqrt(((-2)^2 + 2^2) / (2 - 1))
    assert list(student["mAP"]) == [62, 70] and list(student["mAP_std"]) == [pytest.approx(8**0.5, rel=1e-5), 0]
    assert list(student["mAP_10"]) == [63, 71] and list(student["mAP_10_std"]) == list(student["mAP_std"])
    assert "A title with $ in it" in capsys.readouterr().out


def test_record_and_plot_stand_beside_the_table(tmp_path):
    write_metrics(tmp_path / "a=0" / "metrics.csv", 60.0)
    made(tmp_path, [run(tmp_path, "a=0", fuse__alpha=0)])
    folder = tmp_path / "sweeps" / "x"
    record = json.loads((folder / "table.json").read_text())
    assert record["stage"] == "sweep_table" and record["version"] == STAGES["sweep_table"].version
    assert set(record["outputs"]) == {"table.csv", "plot.png"} and list(record["inputs"]) == ["../../a=0/metrics.csv"]
    with Image.open(folder / "plot.png") as plot:
        assert plot.format == "PNG" and min(plot.size) > 100


def test_one_seed_has_no_deviation_and_texts_are_bars(tmp_path):
    for name, rule in (("r=sqrt", "sqrt"), ("r=hard", "hard")):
        write_metrics(tmp_path / name / "metrics.csv", 60.0 if rule == "sqrt" else None)
    table = made(tmp_path, [run(tmp_path, f"r={rule}", correct__rule=rule) for rule in ("sqrt", "hard")])
    assert table["mAP_std"].isna().all() and set(table["seeds"]) == {1}
    # the second has no student: only the stages of its labels appear
    assert list(table[table["correct.rule"] == "hard"]["stage"]) == ["fused"]


def test_lists_and_no_settings_at_all(tmp_path):
    write_metrics(tmp_path / "a" / "metrics.csv", 60.0)
    write_metrics(tmp_path / "b" / "metrics.csv", 61.0)
    table = made(tmp_path, [run(tmp_path, "a", cut__area=[0.1, 0.2]), run(tmp_path, "b", cut__area=[0.2, 1])])
    assert list(dict.fromkeys(table["cut.area"])) == ["[0.1, 0.2]", "[0.2, 1]"]
    assert len(made(tmp_path, [run(tmp_path, "a")])) == 2


def test_without_truth_the_labels_per_image_are_told(tmp_path):
    for name in ("a=0", "a=1"):
        write_metrics(tmp_path / name / "metrics.csv", 60.0, truth=False)
    table = made(tmp_path, [run(tmp_path, f"a={a}", seed=None, fuse__alpha=a) for a in (0, 1)])
    assert table["mAP"].isna().all() and list(table["labels_per_image"]) == [1.5, 2.0, 1.5, 2.0]
    assert (tmp_path / "sweeps" / "x" / "plot.png").exists()


@pytest.mark.parametrize("text", [None, "", "a,b\n1,2\n"])
def test_a_table_that_is_none(tmp_path, text):
    path = tmp_path / "a=0" / "metrics.csv"
    if text is not None:
        path.parent.mkdir()
        path.write_text(text)
    with pytest.raises(UserError, match=r"a=0/metrics\.csv: (no|has no column)"):
        made(tmp_path, [run(tmp_path, "a=0", fuse__alpha=0)])


@pytest.mark.parametrize(
    ("values", "varied", "line"),
    [
        ({"a": [1, 2]}, ["a"], True),
        ({"a": [1, 1]}, ["a"], False),
        ({"a": [True, False]}, ["a"], False),
        ({"a": ["x", "y"]}, ["a"], False),
        ({"a": [1, None]}, ["a"], False),
        ({"a": [1, 2], "b": [1, 2]}, ["a", "b"], False),
        ({"c": [1, 2]}, [], False),
    ],
)
def test_lines_are_for_one_setting_of_numbers(values, varied, line):
    assert is_line(pd.DataFrame(values), varied) is line
