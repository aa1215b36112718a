"""The generic profile on a stand-in for PBS: what jobs ask for and read, and that they make what one machine makes."""

import copy
import importlib.util
import json
import re
import shutil
import subprocess
from collections import defaultdict

import pytest
from fake_pbs import TRACE, FakePBS, write_tracer
from test_kills import content
from workflow_run import ROOT, SETTINGS, Real, Workflow, draw_image

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_cluster_generic") is None,
        reason="the extra cluster is not installed",
    ),
]

PROFILE = ROOT / "workflow" / "profiles" / "generic"
QUICK = ["--profile", str(PROFILE), "--latency-wait", "10", "--seconds-between-status-checks", "1", "--set-threads"]
QUICK += [f"{rule}=1" for rule in ("encode", "train", "predict", "explain")]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Nine images in two shards, and what one machine makes of them."""
    folder = tmp_path_factory.mktemp("local")
    for i in range(9):
        draw_image(folder / "images" / (f"held-out/{i}.jpg" if i < 3 else f"{i}.jpg"), i)
    settings = copy.deepcopy(SETTINGS)
    settings["dataset"]["truth"] = None
    workflow = Workflow(folder, settings)
    workflow.run()
    return workflow


@pytest.fixture(scope="module")
def submitted(local, tmp_path_factory):
    """The same run through `qsub`: its folder, the stand-in and the folder of traces."""
    folder = tmp_path_factory.mktemp("cluster")
    shutil.copytree(local.folder / "images", folder / "images")
    traces = folder / "traces"
    traces.mkdir()
    write_tracer(folder / "tracer")
    pbs = FakePBS(folder / "pbs", PYTHONPATH=str(folder / "tracer"), OMP_NUM_THREADS="1", **{TRACE: str(traces)})
    workflow = Workflow(folder, local.settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{pbs.binaries}:/usr/bin:/bin")
        done = workflow.snakemake(*QUICK, "--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr + pbs.logs()
    return workflow, pbs, traces


def test_jobs_on_a_cluster_make_what_one_machine_makes(local, submitted):
    workflow, _, _ = submitted
    assert content(workflow.folder / "results") == content(local.folder / "results")


def test_each_job_asks_for_cores_memory_time_and_gpus(submitted):
    _, pbs, _ = submitted
    rules = [words[words.index("-N") + 1] for words in pbs.requests]
    assert {"manifest", "encode", "score", "fuse", "correct", "train", "predict"} <= set(rules)
    for words in pbs.requests:
        wanted = " ".join(words)
        assert re.search(r"select=1:ncpus=\d+:mem=[1-9]\d+mb:ngpus=\d ?", wanted), wanted
        assert re.search(r"walltime=00:[1-9]\d*:00", wanted), wanted


def test_jobs_read_no_images_but_those_of_their_shard(submitted):
    workflow, _, traces = submitted
    images = workflow.folder / "images"
    touched = defaultdict(set)
    processes = set()
    for line in (line for file in traces.iterdir() for line in file.read_text().splitlines()):
        _, _, path, words = json.loads(line)
        name = words[words.index("--log") + 1].rpartition("/")[2] if "--log" in words else words[0].rpartition("/")[2]
        processes.add(name)
        absolute = (workflow.folder / path).resolve() if not path.startswith("/") else workflow.folder / path
        if absolute == images or absolute.is_relative_to(images):
            touched[name].add(str(absolute.relative_to(images)))
    assert {"manifest.log", "score.log", "train.log"} <= processes  # the trace works
    assert "." in touched.pop("manifest.log")
    names = sorted(str(path.relative_to(images)) for path in images.rglob("*.jpg"))
    shards = {"0": names[:8], "1": names[8:]}
    encoded = [name for name in touched if name.startswith("encode")]
    assert len(encoded) >= 2
    for name in encoded:
        shard = re.search(r"-(\d+)\.log", name)[1]
        assert touched.pop(name) == set(shards[shard])
    for name in ("train.log", "predict.log", "explain.log"):  # which read the images that they look at, and list none
        assert not {".", "held-out"} & touched.pop(name, set())
    assert not touched, touched


STATUS = {
    "PBS": (
        {
            "qstat": """case $3 in
                1) printf 'job_state = R\\n';; 2) printf '    job_state = F\\n    Exit_status = 0\\n';;
                3) printf '    job_state = F\\n    Exit_status = 271\\n';;
                4) echo 'qstat: Unknown Job Id 4' >&2; exit 153;; 5) echo 'cannot connect to server' >&2; exit 111;;
            esac"""
        }
    ),
    "SGE": (
        {
            "qstat": """case $2 in
                1) echo 'job_number: 1';; 5) echo 'error: unable to contact qmaster' >&2; exit 1;;
                *) echo 'Following jobs do not exist: '; exit 1;;
            esac""",
            "qacct": """case $2 in
                2) printf 'failed       0    \\nexit_status  0\\n';;
                3) printf 'failed       100 : assumedly after job\\nexit_status  137\\n';;
                4) echo 'error: job id 4 not found' >&2; exit 1;;
            esac""",
        }
    ),
    "LSF": (
        {
            "bjobs": """case $4 in
                1) echo RUN;; 2) echo DONE;; 3) echo EXIT;; 4) echo 'Job <4> is not found' >&2; exit 255;;
                5) echo 'LSF is down. Please wait ...' >&2; exit 255;;
            esac"""
        }
    ),
}


@pytest.mark.parametrize("programs", STATUS.values(), ids=STATUS)
def test_the_state_of_a_job_as_each_scheduler_gives_it(tmp_path, programs):
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    states = [
        subprocess.run(
            ["sh", PROFILE / "job_status.sh", job],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for job in "12345"
    ]
    assert states == [["running"], ["success"], ["failed"], ["success"], ["running"]]


def test_a_job_that_its_scheduler_kills_is_noticed(local, tmp_path, monkeypatch):
    shutil.copytree(local.folder / "images", tmp_path / "images")
    pbs = FakePBS(tmp_path / "pbs", runs="timeout -s KILL 0.2 sh $JOB.sh", OMP_NUM_THREADS="1")
    monkeypatch.setenv("PATH", f"{pbs.binaries}:/usr/bin:/bin")
    done = Real(tmp_path, local.settings).snakemake("results/tiny/default/images.parquet", *QUICK, "--retries", "1")
    assert done.returncode == 1 and "Error in rule manifest" in done.stdout + done.stderr
    memory = [int(re.search(r"mem=(\d+)mb", " ".join(words))[1]) for words in pbs.requests]
    assert len(memory) == 2 and memory[1] == 2 * memory[0]
    assert not (tmp_path / "results/tiny/default/images.parquet").exists()
