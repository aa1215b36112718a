"""Killed at random points, the next plain snakemake completes, repeats no finished job, and makes the same artifacts.

The suite kills a few times; `make kills` kills 50 times, in every stage.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from workflow_run import SETTINGS, Real, Workflow

pytestmark = [pytest.mark.workflow, pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")]

KILLS = int(os.environ.get("CUTSEW_KILLS", "3"))
KILLED = ("everything", "snakemake", "stage")
RUN = "results/killed/default"
MADE = {  # rule -> what it makes in the run's folder, in the order of the pipeline
    "demo_world": ("world", "world.json"),
    "manifest": ("images.parquet", "shards.csv", "skipped.csv", "images.json"),
    "truth": ("truth.parquet", "truth.json"),
    "text": ("text.zarr", "text.json"),
    "encode": ("views.zarr/global", "views.zarr/crops", "views.zarr/boxes", "views.records"),
    "seal": ("views.zarr/zarr.json", "views.json"),
    "score": ("logits.zarr", "logits.json"),
    "fuse": ("fused.zarr", "fused.json"),
    "correct": ("pseudo.zarr", "pseudo.json"),
    "select": ("patches.parquet", "patches.json"),
    "reference_labels": ("references",),
    "train": ("adapter.safetensors", "model.yaml", "refined.zarr", "history.csv", "adapter.json", "refined.json"),
    "predict": ("scores.zarr", "scores.json"),
    "thresholds": ("thresholds.csv", "thresholds.json"),
    "labels_table": ("labels.csv", "labels.parquet", "labels.json"),
    "explain": ("maps.zarr", "maps.json"),
    "evaluate": (
        "metrics.csv",
        "per_class.csv",
        "agreement.csv",
        "confidence.csv",
        "thresholds_f1.csv",
        "metrics.json",
    ),
    "report": ("report.html", "scenes.png", "report.json"),
}
CASES = [
    (rule, KILLED[number % len(KILLED)])
    for number, rule in enumerate((["train", "encode", "manifest", *MADE] * (1 + KILLS // len(MADE)))[:KILLS])
]
BLOCK = re.compile(r"^local(?:rule|checkpoint) (\w+):\n((?:    .*\n)+)", re.MULTILINE)
IGNORED = {"logs", "features", "images.cache", "views.cache"}
PLACE = ("start", "end", "host", "job", "gpus", "work")  # of a record: when, where and how, not what
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    settings = json.loads(json.dumps(SETTINGS))
    settings["dataset"] = {"name": "killed", "kind": "demo", "shard_size": 8, "demo": {"train": 12, "test": 4}}
    settings |= {"references": {"kinds": ["supervised"]}}
    settings["train"] |= {"epochs": 30, "batch_size": 4}
    settings["compute"] = {"device": "cpu", "checkpoint_seconds": 0}
    settings["explain"] = {"num_maps": 2, "num_embeddings": 4}
    workflow = Workflow(tmp_path_factory.mktemp("undisturbed"), settings)
    workflow.run()
    return workflow


def content(results: Path) -> dict[str, str]:
    """Digest every file of the results but caches and logs; records and report without times and places."""
    result = {}
    for path in sorted(results.rglob("*")):
        if not path.is_file() or path.name == ".lock" or IGNORED & set(path.parts):
            continue
        data = path.read_bytes()
        if path.suffix == ".html":
            data = TIME.sub("", data.decode()).encode()
        elif path.suffix == ".json" and path.name != "zarr.json":
            record = json.loads(data)
            record = {key: value for key, value in record.items() if key not in PLACE}
            if path.name == "report.json":
                record["outputs"].pop("report.html")
            data = json.dumps(record).encode()
        result[str(path.relative_to(results))] = hashlib.sha256(data).hexdigest()
    return result


def jobs(output: str) -> dict[str, str]:
    """Return the jobs that a run of snakemake started: number -> its first output."""
    result = {}
    for rule, lines in BLOCK.findall(output):
        fields = dict(line.strip().split(": ", 1) for line in lines.splitlines() if ": " in line)
        result[fields["jobid"]] = fields["output"].split(",")[0] if "output" in fields else rule
    return result


def finished(output: str) -> set[str]:
    """Return the first outputs of the jobs that a run of snakemake finished."""
    started = jobs(output)
    return {started[number] for number in re.findall(r"^Finished jobid: (\d+) ", output, re.MULTILINE)}


def below(process: int) -> list[tuple[int, str]]:
    """List the processes below one, the nearest first, with their command lines."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
    result, waiting = [], [process]
    while waiting:
        for child in children.get(waiting.pop(0), []):
            waiting.append(child)
            try:
                result.append((child, Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")))
            except OSError:
                continue
    return result


def kill(process, what: str, command: str) -> None:
    """Kill all processes of a run, snakemake alone, or the job of one stage; all of them where that job has ended."""
    stages = []
    if what == "snakemake":
        process.kill()
        return
    if what == "stage":
        pattern = re.compile(rf"cutsew --log \S+ {command} ")
        stages = [n for n, line in below(process.pid) if pattern.search(line) and "bash" not in line.split(" ", 1)[0]]
    for number in stages:
        os.kill(number, signal.SIGKILL)
    if not stages:
        os.killpg(process.pid, signal.SIGKILL)


def run_and_kill(workflow: Workflow, rule: str, what: str, rng: random.Random) -> str:
    """Run until a while after a rule's job has started, kill, and return all that was printed."""
    process = workflow.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.match(rf"local(rule|checkpoint) {rule}:", line):
            time.sleep(rng.uniform(0, 4))
            kill(process, what, rule)
            break
    lines += process.stdout
    process.wait()
    return "".join(lines).replace("\r", "\n")


def forget(run: Path, rule: str) -> None:
    """Remove what a rule makes, and all that comes after it."""
    rules = list(MADE)
    for later in rules[rules.index(rule) :]:
        for name in MADE[later]:
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(("number", "rule", "what"), [(i, *case) for i, case in enumerate(CASES)])
def test_the_next_run_completes_and_makes_the_same(undisturbed, tmp_path, number, rule, what):
    shutil.copytree(undisturbed.folder, tmp_path, dirs_exist_ok=True)
    forget(tmp_path / RUN, rule)
    output = run_and_kill(Real(tmp_path, undisturbed.settings), rule, what, random.Random(number))
    assert f"rule {rule}:" in output or f"checkpoint {rule}:" in output, output
    resumes = (tmp_path / RUN / ".train.checkpoint.pt").exists()
    workflow = Workflow(tmp_path, undisturbed.settings)
    done = workflow.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    repeated = finished(output) & set(jobs(done.stdout + done.stderr).values())
    assert not repeated
    if resumes:
        assert "training resumes at step" in (tmp_path / RUN / "logs" / "train.log").read_text()
    assert content(tmp_path / "results") == content(undisturbed.folder / "results")
    assert workflow.run() == {}
