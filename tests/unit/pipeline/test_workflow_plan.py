"""The runs of a config file and of the requested sweeps, and what the targets consist of."""

import json
from pathlib import Path
from types import SimpleNamespace as Wildcards

import pytest

from cutsew.errors import UserError
from cutsew.pipeline import workflow_plan
from cutsew.pipeline.workflow_plan import read_workflow_plan

BASE = {"classes": ["cat", "dog"]}
ALPHA = "title: Alpha\ngrid:\n  fuse.alpha: [0.1, 0.5]\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sweeps").mkdir()
    Path("sweeps/alpha.yaml").write_text(ALPHA)
    Path("sweeps/seeds.yaml").write_text("title: Seeds\nseeds: [0, 1]\n")


def read(raw=BASE, files=(), checks=True, results="results", **changes):
    return read_workflow_plan({**raw, **changes}, map(Path, files), Path("sweeps"), Path(results), checks=checks)


def test_targets_are_of_the_config_files_runs():
    result = read(runs={"one": {"labels.overrides": "audit.csv", "fuse.alpha": 0.5}}, sweep="alpha")
    home = "results/demo"
    names = ("default/report.html", "one/report.html", "default/labels.csv", "one/labels.csv")
    assert result.results() == [f"{home}/{name}" for name in names]
    assert result.labels() == [f"{home}/default/labels.csv", f"{home}/one/labels.csv"]
    assert result.own_runs == ("default", "one") and set(result.plan.runs) == {"default", "one", "alpha=0.5"}


@pytest.fixture(autouse=True)
def _corrections(_folder):
    Path("audit.csv").write_text("image,class,present\n0.jpg,cat,1\n")


def test_sweeps_add_runs_and_tables():
    result = read(sweep="alpha, seeds")
    assert result.sweep_tables() == [f"results/demo/sweeps/{name}/table.csv" for name in ("alpha", "seeds")]
    assert set(result.sweep_runs) == {"default", "alpha=0.5", "seed=0", "seed=1"}
    metrics = result.sweep_metrics(Wildcards(sweep="alpha"))
    assert metrics == ["results/demo/default/metrics.csv", "results/demo/alpha=0.5/metrics.csv"]


def test_the_table_of_a_sweep_names_its_variants_and_files_on_disk():
    result = read(sweep="alpha", results="sub/results")
    table = json.loads(result.sweep_settings(Wildcards(sweep="alpha")))
    assert (table["title"], table["against"]) == ("Alpha", None)
    assert [row["settings"] for row in table["runs"]] == [{"fuse.alpha": 0.1}, {"fuse.alpha": 0.5}]
    assert table["runs"][1]["metrics"] == "sub/results/demo/alpha=0.5/metrics.csv"
    assert result.sweep_metrics(Wildcards(sweep="alpha"))[0] == "results/demo/default/metrics.csv"


def test_variants_that_share_a_run_are_one_row():
    Path("sweeps/maps.yaml").write_text("title: Maps\ngrid:\n  explain.num_embeddings: [4, 8]\n")
    result = read(sweep="maps")
    assert len(result.variants["maps"]) == 2
    assert result.sweep_metrics(Wildcards(sweep="maps")) == ["results/demo/default/metrics.csv"]
    (row,) = json.loads(result.sweep_settings(Wildcards(sweep="maps")))["runs"]
    assert row["variant"] == result.variants["maps"][0].label


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sweep": "beta"}, r"sweep: sweeps/beta\.yaml does not exist; there are alpha, seeds"),
        ({"sweep": "alpha", "runs": {"alpha=0.5": {"fuse.alpha": 0.4}}}, r"alpha: its run alpha=0\.5 differs"),
        ({"fuse": {"alpha": -1}}, r"fuse\.alpha: "),
        ({"dataset": {"kind": "folder", "root": "gone"}}, r"dataset\.root: gone is not a folder"),
    ],
)
def test_mistakes_are_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        read(**changes)
    assert "\n" not in str(caught.value)


def test_a_job_on_a_node_looks_at_no_image(monkeypatch):
    monkeypatch.setattr(workflow_plan, "validate_inputs", lambda *_: pytest.fail("inputs are checked"))
    assert read(dataset={"kind": "folder", "root": "gone"}, checks=False).own_runs == ("default",)


def test_the_target_of_sweeps_needs_one():
    with pytest.raises(UserError, match=r"add --config sweep=NAME \(alpha, seeds, or all\)"):
        read().sweep_tables()


def test_config_files_are_read_again_for_what_snakemake_lets_pass(capsys):
    Path("twice.yaml").write_text("classes: [cat, dog]\nclasses: [cat]\n")
    with pytest.raises(UserError, match=r"twice\.yaml, line 2: not YAML \(the key 'classes' appears twice\)"):
        read(files=["twice.yaml"])
    Path("list.yaml").write_text("classes:\n  - cat dog\n  - bus\n")
    read(files=["list.yaml", "gone.yaml"], checks=False)
    assert capsys.readouterr().err == ""
    read(files=["list.yaml"])
    assert "list.yaml, line 2: class 'cat dog' looks like 2 names" in capsys.readouterr().err


def test_the_limit_of_open_files_is_checked(monkeypatch):
    def refuse():
        raise UserError("too few")

    monkeypatch.setattr(workflow_plan, "check_open_files", refuse)
    with pytest.raises(UserError, match="too few"):
        read()


def test_corrections_are_noted_once(monkeypatch):
    result = read(runs={"one": {"fuse.alpha": 0.5}})
    monkeypatch.setattr(result.plan, "describe_corrections", lambda run: "" if run == "default" else "2 labels")
    assert result.correction_notes() == ["2 labels"]
    monkeypatch.setattr(result.plan, "describe_corrections", lambda run: "2 labels")
    assert result.correction_notes() == ["2 labels"]


def test_metrics_of_evaluated_runs_are_shown():
    result = read(runs={"one": {"fuse.alpha": 0.5}})
    assert result.metrics_as_text() == []
    table = Path("results/demo/one/metrics.csv")
    table.parent.mkdir(parents=True)
    table.write_text("stage,split,images,mAP,remark\nfused,train,4,81.234,\n")
    (text,) = result.metrics_as_text()
    assert text.startswith("results/demo/one/metrics.csv\n") and "81.23" in text


def test_the_base_runs_report_and_labels_are_named_where_they_are_there():
    result = read(runs={"one": {"fuse.alpha": 0.5}})
    assert result.where_to_look() == []
    for run in ("default", "one"):
        Path(f"results/demo/{run}").mkdir(parents=True)
        Path(f"results/demo/{run}/labels.csv").touch()
    assert result.where_to_look() == ["labels: results/demo/default/labels.csv"]
    Path("results/demo/default/report.html").touch()
    assert result.where_to_look()[0] == "report: results/demo/default/report.html"
