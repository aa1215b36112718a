"""Sharing out the GPUs of one machine, with a driver that is a script."""

import os
import subprocess
import sys

import pytest

from cutsew import gpu

CLAIM = "import sys, time; from cutsew.gpu import claim; print(claim(), flush=True); sys.stdin.read()"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make a machine with so many GPUs."""

    def of(count):
        script = tmp_path / "nvidia-smi"
        lines = "".join(f"echo 'GPU {i}: NVIDIA H (UUID: GPU-{i})'\n" for i in range(count))
        script.write_text(f"#!/bin/sh\n{lines}")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        for name in (gpu.VISIBLE, "SLURM_JOB_ID"):
            monkeypatch.delenv(name, raising=False)

    return of


def start():
    process = subprocess.Popen([sys.executable, "-c", CLAIM], stdin=-1, stdout=-1, text=True)
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_driver_is_asked(machine, count):
    machine(count)
    assert gpu.visible() == [str(i) for i in range(count)]


@pytest.mark.parametrize(("value", "devices"), [("2,5", ["2", "5"]), ("GPU-aa", ["GPU-aa"]), ("", []), ("-1", [])])
def test_the_environment_comes_first(machine, monkeypatch, value, devices):
    machine(3)
    monkeypatch.setenv(gpu.VISIBLE, value)
    assert gpu.visible() == devices


def test_without_a_driver_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(gpu.VISIBLE, raising=False)
    assert gpu.visible() == []


def test_each_job_has_a_device_of_its_own_until_it_ends(machine):
    machine(2)
    (first, one), (second, two), (third, none) = start(), start(), start()
    assert {one, two} == {"0", "1"} and none == "None"
    first.kill()
    first.wait()
    fourth, again = start()
    assert again == one
    for process in (second, third, fourth):
        process.communicate("")


@pytest.mark.parametrize("count", [0, 1])
def test_without_a_choice_nothing_is_claimed(machine, count):
    machine(count)
    assert gpu.claim() is None and gpu.VISIBLE not in os.environ


def test_a_schedulers_job_keeps_what_it_was_given(machine, monkeypatch):
    machine(2)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(gpu.VISIBLE, "0,1")
    assert gpu.claim() is None and os.environ[gpu.VISIBLE] == "0,1"
