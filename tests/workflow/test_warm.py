"""The stand-in for Python that runs the other tests' jobs does what Python does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from workflow_run import Workflow

pytestmark = [pytest.mark.workflow, pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")]

REAL = Path(sys.executable)


def both(folder, *words, **options):
    """Run words with both; return what ended how."""
    run = {"cwd": folder, "capture_output": True, "text": True, **options}
    result = [
        subprocess.run([python, *words], check=False, **run) for python in (Workflow.warm.binaries / "python", REAL)
    ]
    return [(done.returncode, done.stdout, done.stderr) for done in result]


def test_commands_end_and_print_as_they_do_in_a_process_of_their_own(tmp_path):
    for words in (["--version"], ["train", "--help"], ["fuse", "nowhere.zarr"], ["verify", "nowhere"]):
        warm, real = both(tmp_path, "-P", "-m", "cutsew", *words)
        assert warm == real


def test_snakemake_ends_and_prints_as_it_does_in_a_process_of_its_own(tmp_path):
    (tmp_path / "Snakefile").write_text("import sys\nsys.exit('one line')\n")
    for words in (["--version"], ["--cores", "1", "--nonsense"], ["-n", "-s", "nowhere"], ["-n"]):
        run = {"cwd": tmp_path, "capture_output": True, "text": True}
        programs = [Workflow.warm.binaries / name for name in ("warm-snakemake", "snakemake")]
        results = [subprocess.run([program, *words], check=False, **run) for program in programs]
        warm, real = [(done.returncode, done.stdout, done.stderr.partition("usage:")[0]) for done in results]
        assert warm == real


def test_a_command_has_its_folder_environment_and_streams(tmp_path):
    (tmp_path / "mine").mkdir()
    words = ["-P", "-m", "cutsew", "--log", "mine/a.log", "verify", "nowhere"]
    warm, real = both(tmp_path, *words, env={"CUTSEW_OWNER": "elsewhere 1", "COLUMNS": "40"})
    assert warm == real and (tmp_path / "mine" / "a.log").exists()


def test_anything_else_is_the_real_pythons(tmp_path):
    warm, real = both(tmp_path, "-c", "import sys; print(sys.prefix); sys.exit(3)")
    assert warm == real and warm[0] == 3


def test_a_killed_command_ends_by_its_signal(tmp_path):
    os.mkfifo(tmp_path / "log")
    words = [Workflow.warm.binaries / "python", "-P", "-m", "cutsew", "--log", "log", "verify", "nowhere"]
    with subprocess.Popen(words, cwd=tmp_path) as requested:  # its process waits for a reader of the log
        children = Path(f"/proc/{Workflow.warm.server.pid}/task/{Workflow.warm.server.pid}/children")
        while not (numbers := children.read_text().split()):
            assert requested.poll() is None
        os.kill(int(numbers[0]), 9)
        assert requested.wait() == -9
