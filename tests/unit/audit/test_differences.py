"""How much better one run is than another: the tool, and the columns of a sweep's table."""

import json

import numpy as np
import pandas as pd
import pytest
from synthetic_run import SETTINGS, make_run, write_zarr

from cutsew.commands.diff_runs import diff_runs as difference
from cutsew.errors import UserError
from cutsew.stages.evaluate import evaluate
from cutsew.stages.sweep_table import sweep_table
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read


def make_pair(parent, **options):
    """Make two runs on the same images, the second with a better student and an ensemble."""
    folders = [parent / name for name in ("paper", "better")]
    for folder in folders:
        given = make_run(folder, train=30, images=False, **options)
        group = open_group(given["scores"])
        ids, classes, z = labels_of(group, "image"), labels_of(group, "class"), read(array_of(group, "z"))
        truth = pd.read_parquet(given["labels"]).set_index("id").loc[ids, classes].to_numpy(np.float32)
        if folder.name == "better":
            given["ensemble"] = write_zarr(folder / "ensemble.zarr", ids, classes, z=z + truth)
        else:
            write_zarr(folder / "scores.zarr", ids, classes, z=z - 2.5 * truth)
        evaluate(given.pop("images"), folder / "metrics.csv", settings=SETTINGS, **given)
    return folders


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("runs"), test=40)


def told(capsys, *args, **options):
    difference(*args, draws=100, **options)
    return capsys.readouterr().out


def test_a_better_student_is_found(runs, capsys):
    both = [pd.read_csv(folder / "metrics.csv").set_index("stage")["mAP"] for folder in runs]
    text = told(capsys, *runs)
    assert text.startswith(f"student: {both[1]['student'] - both[0]['student']:+.2f} [+")
    assert text.endswith("points of mAP (1 and 1 runs, 40 test images, 3 classes)\n")
    # the paper's run has no ensemble: its student stands for it
    assert told(capsys, *runs, stage="ensemble").startswith(
        f"ensemble: {both[1]['ensemble'] - both[0]['student']:+.2f} [+"
    )
    assert (
        told(capsys, *runs, stage="refined")
        == "refined: +0.00 [+0.00, +0.00] points of mAP (1 and 1 runs, 30 train images, 3 classes)\n"
    )


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="paper: has no stage targets; it has zero_shot, fused, "):
        difference(*runs, stage="targets", draws=100)
    other = tmp_path / "other"
    make_run(other, train=3, test=4, images=False)
    with pytest.raises(UserError, match="other: has other images or classes than .*paper; name runs of one dataset"):
        difference(runs[0], other, draws=100)
    (other / "truth.parquet").unlink()
    with pytest.raises(UserError, match="other: has no true labels of its test images"):
        difference(other, other, draws=100)


def swept(folder, runs):
    rows = [{"metrics": str(run / "metrics.csv"), "variant": run.name, "settings": {}, "seed": 9} for run in runs]
    sweep_table(folder / "table.csv", settings={"title": "t", "runs": rows, "against": "paper"})
    return pd.read_csv(folder / "table.csv").set_index(["variant", "stage", "split"])


def test_only_classes_with_enough_positives(runs, tmp_path, capsys):
    per_class = [
        pd.read_csv(run / "per_class.csv").set_index(["stage", "split"]).loc[("student", "test")] for run in runs
    ]
    most = int(per_class[0]["positives"].max())
    counted = (per_class[0]["positives"] == most).to_numpy()
    assert 0 < counted.sum() < len(counted)
    points = per_class[1]["AP"][counted].mean() - per_class[0]["AP"][counted].mean()
    text = told(capsys, *runs, positives=most)
    assert text.startswith(f"student: {points:+.2f} [") and text.endswith(f" images, {counted.sum()} classes)\n")
    with pytest.raises(UserError, match=f"paper: has no class with {most + 1} positives or more among its test images"):
        difference(*runs, positives=most + 1, draws=100)


def test_the_sweeps_table_tells_the_difference_of_common_classes_apart(tmp_path):
    runs = make_pair(tmp_path, test=14)
    better, local_values = (swept(tmp_path, runs).loc[(run.name, "student", "test")] for run in runs[::-1])
    assert better["mAP_10"] != better["mAP"]
    assert better["difference_10"] == pytest.approx(better["mAP_10"] - local_values["mAP_10"], abs=1e-3)
    assert better["difference"] == pytest.approx(better["mAP"] - local_values["mAP"], abs=1e-3)
    assert better["difference_10_low"] <= better["difference_10"] <= better["difference_10_high"]


def test_a_sweep_holds_its_variants_against_one(runs, tmp_path):
    table = swept(tmp_path, runs)
    columns = ["difference", "difference_low", "difference_high"]
    assert table.loc["paper", columns].isna().all(axis=None)
    better, local_values = table.loc[("better", "student", "test")], table.loc[("paper", "student", "test")]
    assert better["difference"] == pytest.approx(better["mAP"] - local_values["mAP"], abs=1e-3)
    assert 0 < better["difference_low"] <= better["difference"] <= better["difference_high"]
    assert table.loc[("better", "fused", "train"), columns].tolist() == pytest.approx([0, 0, 0], abs=1e-9)
    result = table.loc[("better", "ensemble", "test")]
    assert result["difference"] == pytest.approx(result["mAP"] - local_values["mAP"], abs=1e-3)
    assert json.loads((tmp_path / "table.json").read_text())["settings"]["against"] == "paper"
