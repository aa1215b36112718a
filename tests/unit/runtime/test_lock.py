"""One snakemake at a time works on a dataset's results, and a killed one leaves no lock behind."""

import fcntl
import os
import subprocess
import sys

import pytest

from cutsew.errors import UserError
from cutsew.runtime import processes

HOLD = (
    "import sys, time; from pathlib import Path; from cutsew.runtime.processes import acquire_run_lock; "
    "acquire_run_lock(Path(sys.argv[1])); "
)


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD + "print('held', flush=True); time.sleep(60)", folder], stdout=-1, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture(autouse=True)
def released(monkeypatch):
    monkeypatch.setattr(processes, "_held", [])
    yield
    for file in processes._held:
        os.close(file)


def test_the_second_is_refused_and_told_who_is_first(tmp_path):
    first = hold(tmp_path / "demo")
    with pytest.raises(UserError, match=rf"demo: snakemake \(process {first.pid} on .*\) is using it; wait"):
        processes.acquire_run_lock(tmp_path / "demo")
    processes.acquire_run_lock(tmp_path / "another")
    first.kill()
    first.wait()
    processes.acquire_run_lock(tmp_path / "demo")


def test_the_jobs_of_a_killed_one_hold_no_lock(tmp_path):
    code = "import subprocess; subprocess.Popen(['sleep', '60'], close_fds=False); print('held', flush=True)"
    done = subprocess.run([sys.executable, "-c", HOLD + code, tmp_path], stdout=subprocess.DEVNULL, check=True)
    assert done.returncode == 0
    processes.acquire_run_lock(tmp_path)


def test_without_locks_on_the_file_system_it_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def unable(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unable)
    processes.acquire_run_lock(tmp_path)
    assert "cannot be locked (Operation not supported)" in caplog.text


def test_a_folder_is_held_while_something_is_done_and_let_go_whatever_happens(tmp_path):
    folder = tmp_path / "archives"
    for outcome in ("done", "failed"):
        try:
            with processes.directory_lock(folder, "cutsew download", "wait"):
                with pytest.raises(UserError, match=rf"archives: cutsew download \(process {os.getpid()} .*; wait$"):
                    processes.acquire_run_lock(folder)
                assert outcome == "done"
        except AssertionError:
            pass
        assert list(folder.iterdir()) == []
