"""A sweep runs what its variants differ in, and nothing twice."""

import json

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.workflow

ASKED = ("sweep", "--config", "sweep=sweeps/alpha.yaml")
AFTER_FUSE = ("fuse", "correct", "train", "predict", "thresholds", "evaluate")


@pytest.fixture(scope="module", autouse=True)
def sweep_files(workflow):
    folder = workflow.folder / "sweeps"
    folder.mkdir()
    result = {"title": "alpha", "grid": {"fuse.alpha": [0, 0.5]}, "seeds": [9, 10], "against": "alpha=0"}
    (folder / "alpha.yaml").write_text(yaml.safe_dump(result))
    (folder / "bad.yaml").write_text(yaml.safe_dump({"title": "x", "grid": {"fuse.alhpa": [1]}}))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("sweep",), "sweep: none is named; add --config sweep=NAME ("),
        (("sweep", "--config", "sweep=nosuch"), "sweep: "),
        (("sweep", "--config", "sweep=sweeps/bad.yaml"), "sweeps/bad.yaml: fuse.alhpa: unknown setting; did you mean"),
    ],
)
def test_one_line_where_the_sweep_is_wrong(workflow, arguments, line):
    done = workflow.snakemake(*arguments)
    errors = [text for text in done.stderr.splitlines() if text.startswith("cutsew: ")]
    assert done.returncode == 1
    assert len(errors) == 1 and errors[0].startswith(f"cutsew: {line}")
    assert "Traceback" not in done.stderr


def test_shared_stages_run_once(workflow):
    jobs = workflow.run(*ASKED)
    jobs.pop("sweep")
    assert jobs == {
        "manifest": 1,
        "truth": 1,
        "text": 1,
        "encode": 2,
        "seal": 1,
        "score": 1,
        "select": 1,
        "fuse": 2,
        "correct": 2,
        "train": 4,
        "predict": 4,
        "thresholds": 4,
        "evaluate": 4,
        "sweep_table": 1,
    }


def test_a_variant_holds_what_differs(workflow):
    folders = {path.name for path in workflow.results.iterdir() if path.is_dir()}
    assert folders == {"default", "alpha=0", "alpha=0+seed=10", "alpha=0.5", "alpha=0.5+seed=10", "features", "sweeps"}
    assert (workflow.results / "default" / "logits.zarr").exists()
    assert not (workflow.results / "default" / "fused.zarr").exists()
    assert (workflow.results / "alpha=0.5" / "fused.zarr").exists()
    assert not (workflow.results / "alpha=0.5" / "logits.zarr").exists()
    assert not (workflow.results / "alpha=0.5+seed=10" / "fused.zarr").exists()


def test_the_table_and_the_plot_are_there(workflow):
    folder = workflow.results / "sweeps" / "alpha"
    table = pd.read_csv(folder / "table.csv")
    assert (folder / "plot.png").stat().st_size > 1000 and (folder / "table.json").exists()
    student = table[table["stage"] == "student"]
    assert list(student["fuse.alpha"]) == [0, 0.5] and list(student["variant"]) == ["alpha=0", "alpha=0.5"]
    assert set(table["seeds"]) == {2}
    assert list(student["difference"].isna()) == [True, False] and student["difference_low"].notna().any()


def test_a_second_time_nothing_runs(workflow):
    done = workflow.snakemake(*ASKED)
    assert done.returncode == 0 and "Nothing to be done" in done.stderr + done.stdout


def test_the_base_run_takes_what_the_sweep_has_made(workflow):
    jobs = workflow.run()
    assert jobs == {**dict.fromkeys(AFTER_FUSE, 1), "labels_table": 1, "report": 1}


def test_paper_and_released_side_by_side(workflow):
    workflow.edit(runs={"released": {"method": "released", "cut.passes": 4}})
    local_values = "results/tiny/released"
    jobs = workflow.run(f"{local_values}/patches.parquet")
    jobs.pop("manifest", None)
    assert jobs == {
        "text": 1,
        "encode": 2,
        "encode_crops": 2,
        "seal": 1,
        "score": 1,
        "fuse": 1,
        "correct": 1,
        "select": 1,
    }
    record = json.loads((workflow.results / "released" / "patches.json").read_text())
    assert "pseudo.zarr/zarr.json" in record["inputs"]
    result = json.loads((workflow.results / "released" / "fused.json").read_text())
    assert result["settings"]["fuse"] == {"rule": "gated", "gate": 0.01, "passes": None}
