"""Sharing out the GPUs of one machine, with a driver that is a script."""

import os
import subprocess
import sys

import pytest
import torch

from cutsew.errors import UserError
from cutsew.runtime import gpus
from cutsew.runtime.device import device_facts, pick_device

CLAIM = (
    "import sys, time; from cutsew.runtime.gpus import reserve_gpu; print(reserve_gpu(), flush=True); sys.stdin.read()"
)


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
        for name in (gpus.VISIBLE, "SLURM_JOB_ID"):
            monkeypatch.delenv(name, raising=False)

    return of


def start():
    process = subprocess.Popen([sys.executable, "-c", CLAIM], stdin=-1, stdout=-1, text=True)
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_driver_is_asked(machine, count):
    machine(count)
    assert gpus.list_visible_gpus() == [str(i) for i in range(count)]


@pytest.mark.parametrize(("value", "devices"), [("2,5", ["2", "5"]), ("GPU-aa", ["GPU-aa"]), ("", []), ("-1", [])])
def test_the_environment_comes_first(machine, monkeypatch, value, devices):
    machine(3)
    monkeypatch.setenv(gpus.VISIBLE, value)
    assert gpus.list_visible_gpus() == devices


def test_without_a_driver_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    assert gpus.list_visible_gpus() == []


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
    assert gpus.reserve_gpu() is None and gpus.VISIBLE not in os.environ


def test_jobs_inside_one_allocation_share_out_its_gpus(machine, monkeypatch):
    machine(4)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    (first, one), (second, two) = start(), start()
    assert {one, two} == {"0", "1"}
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # another allocation on this machine numbers its GPUs alike
    third, other = start()
    assert other == "0"
    for process in (first, second, third):
        process.communicate("")


@pytest.mark.parametrize("name", ["cuda:1", "gpu", "mps:0", ""])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UserError, match="--device: .* is not one of auto, cpu, cuda"):
        pick_device(name)


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_an_allocated_gpu_that_torch_cannot_use_is_an_error_and_no_silent_cpu(machine, monkeypatch, wanted):
    machine(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    with pytest.raises(UserError, match=r"has GPU 0, but torch .* cannot use it \(it is built without CUDA"):
        pick_device(wanted)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(UserError, match="the driver may be too old"):
        pick_device(wanted)
    assert pick_device("cpu") == "cpu"


def test_an_allocated_gpu_without_a_driver_draws_a_warning(machine, monkeypatch, caplog):
    machine(0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_JOB_GPUS", "3")
    assert pick_device("auto") == "cpu"
    assert "GPU 3 was allocated, but no NVIDIA driver is here; the CPU is used" in caplog.text


def test_without_any_gpu_auto_takes_the_cpu(machine, monkeypatch):
    machine(0)
    monkeypatch.delenv("SLURM_JOB_GPUS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(UserError, match="cuda is not available here"):
        pick_device("cuda")


def test_a_record_names_the_gpu_and_its_libraries(monkeypatch):
    assert device_facts("cpu") == {"device": "cpu"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    facts = device_facts("cuda")
    assert (facts["device"], facts["gpu"], facts["cuda"]) == ("cuda", "NVIDIA H", "12.8") and "cudnn" in facts
