"""On a real Slurm cluster of two nodes that tests/slurm/cluster.sh starts: what runs where, and what a failure does.

`make slurm` runs these; they are skipped where Slurm cannot be started.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from test_kills import content
from workflow_run import ROOT, SETTINGS, Real, draw_image

pytestmark = pytest.mark.slurm

CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
HOME = Path(os.environ.get("CUTSEW_SLURM_DIR", "/tmp/cutsew-slurm"))
PROFILE = ["--profile", str(ROOT / "workflow" / "profiles" / "slurm")]
SITE = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"]
SITE += ["--seconds-between-status-checks", "2", "--latency-wait", "10", "--set-threads"]
SITE += [f"{rule}=1" for rule in ("encode", "train", "predict", "explain")]
NODES = {"n1", "n2"}
TRAINING = "cutsew --log .*{}.* train "  # the command line of a training on a node


def cannot(*more):
    if os.geteuid() != 0:
        return "starting Slurm needs root"
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch", *more) if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (tests/slurm/cluster.sh install)" if missing else None


@pytest.fixture(scope="module")
def cluster():
    if reason := cannot():
        pytest.skip(reason)
    subprocess.run([CLUSTER, "up"], check=True)
    yield
    subprocess.run([CLUSTER, "down"], check=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same images and settings, run on this machine."""
    folder = tmp_path_factory.mktemp("local")
    for i in range(9):
        draw_image(folder / "images" / (f"held-out/{i}.jpg" if i < 3 else f"{i}.jpg"), i)
    settings = json.loads(json.dumps(SETTINGS))
    settings["dataset"]["truth"] = None
    settings["train"] |= {"epochs": 120}
    settings["compute"] = {"device": "auto", "checkpoint_seconds": 0}
    workflow = Real(folder, settings)
    workflow.run()
    return workflow


@pytest.fixture
def workflow(local, cluster, tmp_path):
    """A folder with the same images and no results."""
    shutil.copytree(local.folder / "images", tmp_path / "images")
    return Real(tmp_path, local.settings)


def on_cluster(workflow, *arguments, retries=0):
    done = workflow.snakemake(*PROFILE, *SITE, "--retries", str(retries), *arguments)
    return done.returncode, done.stdout + done.stderr


def completes(workflow, local):
    status, output = on_cluster(workflow)
    assert status == 0, output
    assert content(workflow.folder / "results") == content(local.folder / "results")
    return output


def submitted(output):
    """Count the jobs of each rule that went to the cluster."""
    logs = re.findall(r"has been submitted with SLURM jobid \d+ \(log: \S+/rule_(\w+)/", output)
    return Counter(logs)


def starts(workflow, rule, *arguments):
    """Start a run and wait until a job of a rule runs on a node; return the process, what it printed and the job."""
    process = workflow.start(*PROFILE, *SITE, "--retries", "0", *arguments)
    printed = []
    for line in process.stdout:
        printed.append(line)
        if result := re.search(rf"submitted with SLURM jobid (\d+) \(log: \S+/rule_{rule}/", line):
            job = result[1]
            break
    while asked("squeue", "-h", "-j", job, "-o", "%T") != "RUNNING":
        time.sleep(0.1)
    return process, printed, job


def asked(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def wait_for(done, seconds=120):
    for _ in range(seconds * 10):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def test_the_heavy_stages_run_as_jobs_and_make_the_same(workflow, local):
    output = completes(workflow, local)
    heavy = {"manifest": 1, "text": 1, "encode": 2, "score": 1, "fuse": 1}
    assert submitted(output) == {**heavy, "correct": 1, "train": 1, "predict": 1}
    for name in ("images", "logits", "adapter", "scores"):
        record = json.loads((workflow.results / "default" / f"{name}.json").read_text())
        assert record["host"] in NODES and record["job"].isdigit()
    assert json.loads((workflow.results / "default" / "adapter.json").read_text())["gpus"] in ("0", "1")
    report = json.loads((workflow.results / "default" / "report.json").read_text())
    assert report["job"] is None
    status, output = on_cluster(workflow)
    assert status == 0 and "Nothing to be done" in output


def test_encoding_as_a_job_array(workflow, local):
    status, output = on_cluster(workflow, "--slurm-array-jobs", "encode")
    assert status == 0, output
    assert content(workflow.folder / "results") == content(local.folder / "results")


def test_a_job_without_enough_memory_is_tried_again_with_more(workflow):
    target = "results/tiny/default/views.zarr/global/c/0/0"
    more = ("--set-resources", "encode:mem_mb=300 + (attempt - 1) * 2000")
    status, output = on_cluster(workflow, target, *more, retries=1)
    assert status == 0, output
    assert submitted(output)["encode"] == 2 and "Trying to restart job" in output
    jobs = re.findall(r"submitted with SLURM jobid (\d+) \(log: \S+/rule_encode/", output)
    memory = [asked("squeue", "-h", "-t", "all", "-j", job, "-o", "%m") for job in jobs]
    assert memory == ["300M", "2300M"]


@pytest.mark.parametrize("rule", ["encode", "train"])
def test_a_cancelled_job_ends_the_run_and_the_next_one_goes_on(workflow, local, rule):
    process, printed, job = starts(workflow, rule)
    if rule == "train":
        wait_for((workflow.results / "default" / ".train.checkpoint.pt").exists)
    asked("scancel", job)
    printed += process.stdout
    assert process.wait() == 1, "".join(printed)
    completes(workflow, local)
    if rule == "train":
        assert "training resumes at step" in (workflow.results / "default" / "logs" / "train.log").read_text()


def test_a_node_that_is_lost(workflow, local):
    process, printed, job = starts(workflow, "train")
    wait_for((workflow.results / "default" / ".train.checkpoint.pt").exists)
    node = asked("squeue", "-h", "-j", job, "-o", "%N")
    daemon = int((HOME / "run" / f"{node}.pid").read_text())
    steps = asked("pgrep", "-f", rf"slurmstepd: \[{job}\.").split()
    os.kill(daemon, signal.SIGKILL)
    for step in steps:
        os.kill(int(step), signal.SIGKILL)
    subprocess.run(["pkill", "-KILL", "-f", TRAINING.format(workflow.results.name)], check=False)
    wait_for(lambda: asked("sinfo", "-h", "-n", node, "-o", "%T").startswith("down"))
    asked("scancel", job)  # Slurm would start it on the other node by itself; here the whole run has to end
    printed += process.stdout
    process.wait()
    subprocess.run([CLUSTER, "node", node[1:]], check=True)
    wait_for(lambda: asked("sinfo", "-h", "-n", node, "-o", "%T") == "idle")
    completes(workflow, local)


def test_a_training_that_runs_out_of_time_goes_on(workflow, local):
    limit = ("--set-resources", "train:runtime=1", "--retries", "3")
    process, printed, _ = starts(workflow, "train", *limit)
    wait_for((workflow.results / "default" / ".train.checkpoint.pt").exists)
    # Stopped, it uses up its minute however fast this machine trains; Slurm wakes it to end it.
    subprocess.run(["pkill", "-STOP", "-f", TRAINING.format(workflow.results.name)], check=True)
    printed += process.stdout
    output = "".join(printed)
    assert process.wait() == 0, output
    assert submitted(output)["train"] == 2
    assert "training resumes at step" in (workflow.results / "default" / "logs" / "train.log").read_text()
    assert content(workflow.folder / "results") == content(local.folder / "results")


def test_an_impossible_request_is_refused_at_once(workflow):
    target = "results/tiny/default/images.parquet"
    status, output = on_cluster(workflow, target, "--set-resources", "manifest:mem_mb=10000000")
    assert status == 1 and output.count("Memory specification can not be satisfied") == 1
    assert not Path(workflow.folder, target).exists()
