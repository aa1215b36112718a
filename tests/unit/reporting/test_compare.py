"""A run's numbers beside published ones, protocol by protocol."""

import json

import pandas as pd
import pytest

from cutsew.commands.compare_published import compare_published as tool
from cutsew.config.benchmarks import BENCHMARK_SPECS
from cutsew.errors import UserError
from cutsew.provenance.record import Record
from cutsew.reporting.literature import Measured, join_published, protocol_of, published

METRICS = [
    {"stage": "zero_shot", "split": "train", "mAP": 85.0},
    {"stage": "fused", "split": "train", "mAP": 88.0},
    {"stage": "student", "split": "test", "mAP": 90.0},
]


def finished(folder, kind="voc", benchmark="voc2012", protocol="paper", difficult="negative", skipped=0, **dataset):
    """Write the records and the table of a measured run of a variant, whose images are in the base run's folder."""
    base, run = folder / "results" / "b" / "default", folder / "results" / "b" / "variant"
    base.mkdir(parents=True)
    run.mkdir()
    settings = {"kind": kind, "root": "x", "benchmark": benchmark, "protocol": protocol, **dataset}
    for name in ("images.parquet", "truth.parquet"):
        (base / name).write_text(name)
    Record("manifest", 1, {"dataset": settings}, [], {"skipped": skipped}).write(base / "images.json", {})
    Record("truth", 1, {"dataset": {"kind": kind} | ({"difficult": difficult} if kind == "voc" else {})}).write(
        base / "truth.json", {}
    )
    pd.DataFrame(METRICS).to_csv(run / "metrics.csv", index=False)
    Record("evaluate", 1, {}, [base / "images.parquet", base / "truth.parquet"]).write(run / "metrics.json", {})
    return run


def test_published_numbers_are_of_known_protocols_and_stages():
    table = published()
    known = {(benchmark, protocol) for benchmark, protocol in BENCHMARK_SPECS}
    result = set(zip(table["benchmark"], table["protocol"], strict=True))
    assert {pair for pair in result if pair[1] != "unknown"} <= known
    assert {benchmark for benchmark, _ in result} == {benchmark for benchmark, _ in known}
    assert set(table["split"]) == {"train", "test"} and table["mAP"].between(0, 100).all()
    assert (table["source"] != "").all() and set(table["labels"]) == {"none", "all"}


def test_side_by_side_by_hand():
    columns = ["method", "source", "benchmark", "protocol", "split", "stage", "labels", "mAP", "note"]
    rows = [
        ["A", "a", "voc2012", "paper", "test", "student", "none", 88.6, ""],
        ["B", "b", "voc2012", "common", "test", "student", "none", 99.0, ""],
        ["C", "c", "voc2007", "paper", "test", "student", "none", 77.0, ""],
        ["D", "d", "voc2012", "paper", "train", "student", "none", 66.0, ""],
    ]
    table, others = join_published(
        pd.DataFrame(METRICS), pd.DataFrame(rows, columns=columns), Measured("voc2012", "paper", [])
    )
    assert table[["stage", "split"]].to_numpy().tolist() == [[row["stage"], row["split"]] for row in METRICS]
    assert table["published"].isna().tolist() == [True, True, False]
    student = table.iloc[2]
    assert (student["method"], student["published"]) == ("A", 88.6)
    assert student["difference"] == pytest.approx(1.4)
    assert others["method"].tolist() == ["B"]


def test_the_command_keeps_protocols_apart(tmp_path, capsys):
    for protocol, lists in (("paper", ("train", "val")), ("common", ("trainval", "test"))):
        voc = dict(zip(("train", "test"), lists, strict=True))
        run = finished(tmp_path / protocol, benchmark="voc2007", protocol=protocol, voc=voc)
        tool(run)
        compared, _, apart = capsys.readouterr().out.partition("not compared")
        assert compared.startswith(f"voc2007, protocol {protocol}")
        assert ("CDUL" in compared) == (protocol == "common") and ("CDUL" in apart) == (protocol == "paper")
        assert "BAC-GCN" in apart  # of which nobody here knows the protocol


def test_a_runs_own_protocol(tmp_path):
    assert protocol_of(finished(tmp_path, skipped=3)) == Measured(
        "voc2012", "paper", ["3 listed images could not be read and are not among those measured"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": None}, "dataset.benchmark is not set"),
        ({"allow_incomplete": True}, "an incomplete copy of voc2012"),
        ({"difficult": "ignore"}, "dataset.difficult is ignore, but the published numbers use negative"),
        (
            {"kind": "coco", "benchmark": "coco2014", "unannotated": "keep"},
            "dataset.unannotated is keep, but protocol paper",
        ),
    ],
)
def test_numbers_that_are_not_the_benchmarks_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        protocol_of(finished(tmp_path, **changes))


def test_runs_that_were_not_measured(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.json: no readable record"):
        protocol_of(tmp_path)
    run = finished(tmp_path)
    record = json.loads((run / "metrics.json").read_text())
    record["inputs"] = {name: digest for name, digest in record["inputs"].items() if "truth" not in name}
    (run / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="without ground truth"):
        protocol_of(run)
