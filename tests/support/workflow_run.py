"""Running the workflow for real: a folder of its own, small images, the demo's tiny CLIP."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml
from benchmark_copies import draw_image
from warm import Warm

ROOT = Path(__file__).parents[2]
JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):", re.MULTILINE)

SETTINGS = {
    "method": "paper",
    "classes": ["cat", "dog", "bus"],
    "dataset": {
        "name": "tiny",
        "kind": "folder",
        "root": "images",
        "truth": "truth.csv",
        "test": {"folder": "held-out"},
        "shard_size": 8,
    },
    "teacher": {"open_clip": {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 96}},
    "cut": {"passes": 2, "passes_per_job": 2},
    "select": {"top_k": 2},
    "sew": {"max_overlays": 1},
    "student": {"open_clip": {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 64}},
    "train": {
        "epochs": 1,
        "batch_size": 4,
        "adapter": {"width": 16, "heads": 2, "layers": 1, "feedforward": 16},
    },
    "explain": {"kind": "none"},  # switched on where it is what is tested
    "compute": {"device": "cpu"},
}


def clone(folder: Path, settings: dict) -> Path:
    """Make what `git clone` and an installation in `.venv` leave, with a config of one's own and a few images."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if name.startswith(("workflow/", "config/", "envs/", "profiles", "slurm")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings))
    for i in range(9):
        draw_image(folder / "images" / (f"held-out/{i}.jpg" if i < 3 else f"{i}.jpg"), i)
    return folder


def typed(folder: Path, *words: str | Path, path: str = os.defpath) -> subprocess.CompletedProcess:
    """Run a command in a folder with nothing exported but a PATH that knows of no environment."""
    environment = {"PATH": path, "HOME": str(folder)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


class Workflow:
    """A folder in which snakemake runs."""

    warm: Warm | None = None
    """Runs the jobs, in tests that are not about how a job's process starts and ends."""

    def __init__(self, folder: Path, settings: dict) -> None:
        self.folder = folder
        self.settings = settings
        self.results = folder / "results" / settings["dataset"]["name"]

    def edit(self, **changes) -> None:
        """Change settings, named `section__key`."""
        for name, value in changes.items():
            *groups, key = name.split("__")
            section = self.settings
            for group in groups:
                section = section.setdefault(group, {})
            section[key] = value

    def start(self, *arguments: str, stderr: int = subprocess.STDOUT) -> subprocess.Popen:
        """Start snakemake as a user would, in a process group of its own."""
        return self._start("snakemake", arguments, stderr)

    def _start(self, program: str, arguments: Sequence[str], stderr: int) -> subprocess.Popen:
        path = self.folder / "config" / "config.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(self.settings))
        binaries = self.binaries()
        return subprocess.Popen(
            [binaries / program, "--snakefile", ROOT / "workflow" / "Snakefile", "--cores", "2", *arguments],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def binaries(self) -> Path:
        """Return the folder of the programs."""
        return self.warm.binaries if self.warm else Path(sys.executable).parent

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run snakemake to its end."""
        if self.binaries().joinpath("warm-snakemake").exists():
            process = self._start("warm-snakemake", arguments, subprocess.PIPE)
        else:
            process = self.start(*arguments, stderr=subprocess.PIPE)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def run(self, *arguments: str) -> dict[str, int]:
        """Run to the end and count the jobs of each rule, but for rule all."""
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        jobs = Counter(JOB.findall(done.stdout + done.stderr))
        jobs.pop("all", None)
        return dict(jobs)


class Real(Workflow):
    """One whose jobs are started as they are for a user."""

    def binaries(self):
        return Path(sys.executable).parent


class Offline(Workflow):
    """Snakemake and its jobs without a network: what looks for a host beyond this machine fails and is written down."""

    def _start(self, program, arguments, stderr):
        self.folder.joinpath("bin").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tests" / "support" / "no_network.py", self.folder / "bin" / "sitecustomize.py")
        os.environ["PYTHONPATH"] = f"{self.folder / 'bin'}:{os.environ.get('PYTHONPATH', '')}"
        try:
            return super()._start(program, arguments, stderr)
        finally:
            os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].partition(":")[2]


def cutsew(workflow: Workflow, *arguments: str) -> subprocess.CompletedProcess:
    """Run a command of the package in the workflow's folder."""
    command = [workflow.binaries() / "cutsew", *arguments]
    return subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True, check=False)
