"""Two snakemake in one folder: refused on one dataset, undisturbed on two."""

import json
import re
import subprocess

import pytest
from workflow_run import SETTINGS, Workflow, draw_image

from cutsew.config import override

pytestmark = pytest.mark.workflow


def of_dataset(folder, name):
    settings = override(json.loads(json.dumps(SETTINGS)), {"student.kind": "none"})
    settings["dataset"] |= {"name": name, "root": f"images-{name}", "truth": None, "test": {}}
    for i in range(3):
        draw_image(folder / f"images-{name}" / f"{name}{i}.jpg", len(name) + i + 100 * (name == "two"))
    (folder / f"{name}.yaml").write_text(json.dumps(settings))
    return Workflow(folder, settings)


def test_a_second_run_is_refused_and_another_dataset_runs_beside(tmp_path):
    one, two = of_dataset(tmp_path, "one"), of_dataset(tmp_path, "two")
    first = one.start("--configfile", "one.yaml", stderr=subprocess.STDOUT)
    lines = iter(first.stdout.readline, "")
    assert any(re.match("localcheckpoint manifest", line) for line in lines)
    refused = one.snakemake("--configfile", "one.yaml")
    other = two.start("--configfile", "two.yaml")
    errors = [line for line in refused.stderr.splitlines() if line.startswith("cutsew: ")]
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert errors == [line for line in errors if f"results/one: snakemake (process {first.pid} on " in line]
    assert len(errors) == 1 and errors[0].endswith("wait for it to finish, or give this run another dataset.name")
    assert one.snakemake("--configfile", "one.yaml", "--dry-run").returncode == 0
    stated = ["".join(lines), other.communicate()[0]]
    assert [first.wait(), other.wait()] == [0, 0], stated
    for name in ("one", "two"):
        home = tmp_path / "results" / name / "default"
        assert home.joinpath("report.html").exists()
        assert one.snakemake("--configfile", f"{name}.yaml").stderr.count("Nothing to be done")
        result = json.loads(home.joinpath("images.json").read_text())
        assert result["settings"]["dataset"]["root"] == f"images-{name}"
