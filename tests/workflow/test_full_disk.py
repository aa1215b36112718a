"""A disk that fills up in the middle: one line says so, and after it has room again the next run makes the same."""

import json
import os
import re
import subprocess

import pytest
from test_kills import content
from workflow_run import SETTINGS, Workflow

pytestmark = pytest.mark.workflow


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own for the results."""
    results = tmp_path / "results"
    results.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", results], check=False)
    if mounted.returncode != 0:
        pytest.skip("a disk of its own needs root")
    yield results
    subprocess.run(["umount", "--lazy", results], check=True)


def settings():
    chosen = json.loads(json.dumps(SETTINGS))
    chosen["dataset"] = {"name": "full", "kind": "demo", "shard_size": 8, "demo": {"train": 12, "test": 4}}
    return chosen


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workflow = Workflow(tmp_path_factory.mktemp("undisturbed"), settings())
    workflow.run()
    return workflow


def size(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def test_a_disk_that_fills_up(undisturbed, disk):
    needed = size(undisturbed.folder / "results")
    workflow = Workflow(disk.parent, settings())
    ballast = disk / "ballast"
    failed = set()
    for share in (0.05, 0.6):  # of what is still to be made
        room = share * (needed - size(disk))
        ballast.write_bytes(bytes(int(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - room)))
        done = workflow.snakemake()
        ballast.unlink()
        output = done.stdout + done.stderr
        assert done.returncode == 1, output
        assert "cannot be written (No space left on device)" in output
        assert "Traceback" not in output
        failed |= set(re.findall(r"Error in rule (\w+):", output))
    assert len(failed) > 1  # it filled up at several places
    assert workflow.snakemake().returncode == 0
    assert content(disk) == content(undisturbed.folder / "results")
