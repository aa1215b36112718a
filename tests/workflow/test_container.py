"""Jobs in a container: how Snakemake calls it. A stand-in for apptainer runs the commands on this machine."""

import copy
import shlex

import pytest
from workflow_run import SETTINGS, Workflow

pytestmark = pytest.mark.workflow

APPTAINER = """#!/bin/sh
# apptainer exec OPTIONS IMAGE COMMAND...: keep the words, and run the command where only the image's programs are.
if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi
printf '%s\\n' "$@" >> {log}
while [ "${{1%.sif}}" = "$1" ]; do shift; done
shift
PATH={binaries}:/usr/bin:/bin exec "$@"
"""
TARGET = "results/tiny/default/text.zarr/zarr.json"


@pytest.fixture
def workflow(tmp_path, monkeypatch):
    workflow = Workflow(tmp_path, copy.deepcopy(SETTINGS) | {"dataset": {"name": "tiny", "kind": "demo"}})
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    inside = shlex.quote(str(workflow.binaries()))
    program.write_text(APPTAINER.format(log=tmp_path / "calls", binaries=inside))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return workflow


def test_jobs_run_the_images_own_package(workflow):
    workflow.edit(compute__container="cutsew.sif")
    (workflow.folder / "cutsew.sif").touch()
    assert workflow.run(TARGET, "--sdm", "apptainer") == {"text": 1}
    words = (workflow.folder / "calls").read_text().splitlines()
    assert words[0] == "exec" and "cutsew.sif" in words
    assert any("cutsew --log " in word and "-m cutsew" not in word for word in words)
    assert (workflow.folder / TARGET).exists()


def test_a_container_without_an_image_is_refused_in_one_line(workflow):
    done = workflow.snakemake(TARGET, "--sdm", "apptainer")
    lines = [line for line in done.stderr.splitlines() if line.startswith("cutsew: ")]
    assert done.returncode == 1 and len(lines) == 1 and lines[0].startswith("cutsew: compute.container: not set")
    assert "Traceback" not in done.stderr


def test_an_image_changes_nothing_without_apptainer(workflow):
    workflow.edit(compute__container="cutsew.sif")
    assert workflow.run(TARGET) == {"text": 1}
    assert not (workflow.folder / "calls").exists()
