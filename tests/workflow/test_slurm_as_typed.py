"""On a Slurm cluster, `.venv/bin/snakemake --cores all --profile slurm` as it stands, with accounting and without.

`make slurm` runs these; they are skipped where Slurm cannot be started.
"""

import copy
import re
import subprocess

import pytest
from test_slurm_run import CLUSTER, NODES, cannot
from workflow_run import SETTINGS, clone, typed

from cutsew.config import override

pytestmark = pytest.mark.slurm

CHANGED = "cutsew: Slurm: sacct cannot answer (accounting is off on this cluster); squeue is used instead"


@pytest.fixture(params=["", "accounting"], ids=["without accounting", "with accounting"])
def accounting(request):
    if reason := cannot(*(["slurmdbd", "mariadbd"] if request.param else [])):
        pytest.skip(reason)
    subprocess.run([CLUSTER, "up", *filter(None, [request.param])], check=True)
    yield request.param
    subprocess.run([CLUSTER, "down"], check=True)


def test_a_fresh_clone_runs_with_nothing_exported(accounting, tmp_path):
    settings = override(copy.deepcopy(SETTINGS), {"student.kind": "none"})
    settings["dataset"] |= {"truth": None, "shard_size": 16}
    folder = clone(tmp_path / "clone", settings)
    done = typed(folder, ".venv/bin/snakemake", "--cores", "all", "--profile", "slurm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count(CHANGED) == (not accounting)
    assert len(re.findall("has been submitted with SLURM jobid", done.stderr + done.stdout)) == 6
    run = folder / "results" / "tiny" / "default"
    assert (run / "report.html").exists()
    hosts = re.findall(r'"host": "(\w+)"', (run / "fused.json").read_text())
    assert set(hosts) <= NODES and hosts
