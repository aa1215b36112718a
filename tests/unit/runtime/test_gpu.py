"""Sharing out the GPUs of one machine, with a driver that is a script."""

import os
import subprocess
import sys
from unittest import mock

import pytest
import torch

from cutsew.errors import UserError
from cutsew.runtime import gpus
from cutsew.runtime.device import device_facts, pick_device

CLAIM = """
import os, pathlib, sys
from cutsew.runtime import gpus
gpus.LOCKS = pathlib.Path(sys.argv[1])
print(gpus.reserve_gpu(), os.environ.get("CUDA_DEVICE_ORDER"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make a machine with so many GPUs, each of them divided into so many slices."""

    def of(count, slices=0, prefix="GPU-"):
        script = tmp_path / "nvidia-smi"
        lines = ""
        for i in range(count):
            lines += f"echo 'GPU {i}: NVIDIA H (UUID: {prefix}{i})'\n"
            lines += "".join(f"echo '  MIG 3g.20gb     Device  {j}: (UUID: MIG-{i}-{j})'\n" for j in range(slices))
        script.write_text(f"#!/bin/sh\n{lines}")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(gpus, "LOCKS", tmp_path)
        for name in (gpus.VISIBLE, "SLURM_JOB_ID", "CUDA_DEVICE_ORDER"):
            monkeypatch.delenv(name, raising=False)

    return of


@pytest.fixture
def start(tmp_path):
    """Start a process that reserves a GPU and keeps it; all of them end with the test."""
    processes = []

    def reserving(**environment):
        command = [sys.executable, "-c", CLAIM, tmp_path]
        process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env={**os.environ, **environment})
        processes.append(process)
        return process, process.stdout.readline().split()[0]

    yield reserving
    for process in processes:
        process.communicate("")


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


def test_each_job_has_a_device_of_its_own_until_it_ends(machine, start):
    machine(2)
    (first, one), (_, two), (_, none) = start(), start(), start()
    assert {one, two} == {"0", "1"} and none == "None"
    first.kill()
    first.wait()
    assert start()[1] == one


def test_jobs_of_several_users_share_out_the_gpus_whatever_their_tmpdir_and_umask(machine, start, tmp_path):
    machine(2)
    mask = os.umask(0o077)
    try:
        assert [start(TMPDIR=str(tmp_path / name))[1] for name in ("one", "two", "three")] == ["0", "1", "None"]
    finally:
        os.umask(mask)
    locks = sorted(tmp_path.glob("*.lock"))
    assert [lock.name for lock in locks] == ["cutsew-gpu-GPU-0.lock", "cutsew-gpu-GPU-1.lock"]
    assert {lock.stat().st_mode & 0o777 for lock in locks} == {0o666}


def test_a_number_and_a_uuid_are_one_gpu(machine, start):
    machine(2)
    assert start()[1] == "0"
    assert start(CUDA_VISIBLE_DEVICES="GPU-0,GPU-1")[1] == "GPU-1"
    assert start(CUDA_VISIBLE_DEVICES="1,0")[1] == "None"


def test_slices_of_divided_gpus_are_shared_out_one_by_one(machine, start):
    machine(2, slices=2)
    slices = ["MIG-0-0", "MIG-0-1", "MIG-1-0", "MIG-1-1"]
    assert gpus.list_visible_gpus() == slices
    assert [start()[1] for _ in range(5)] == [*slices, "None"]


def test_the_drivers_numbers_are_those_that_cuda_uses(machine, monkeypatch):
    machine(2)
    monkeypatch.setattr(gpus, "_held", [])
    with mock.patch.dict(os.environ):
        assert gpus.reserve_gpu() == "0" and gpus.has_reserved()
        assert (os.environ[gpus.VISIBLE], os.environ["CUDA_DEVICE_ORDER"]) == ("0", "PCI_BUS_ID")


@pytest.mark.parametrize("count", [0, 1])
def test_without_a_choice_nothing_is_claimed(machine, count):
    machine(count)
    assert gpus.reserve_gpu() is None and gpus.VISIBLE not in os.environ


@pytest.mark.parametrize("known", [True, False])
def test_jobs_inside_one_allocation_share_out_its_gpus(machine, start, monkeypatch, known):
    machine(2 if known else 0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    assert {start()[1], start()[1]} == {"0", "1"}
    assert start()[1] == "None"
    machine(2 if known else 0, prefix="GPU-other-")  # another allocation on this machine numbers its GPUs alike
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    assert start()[1] == "0"


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


def test_with_a_gpu_torch_leaves_the_cores_to_the_workers(machine, monkeypatch):
    machine(1)
    threads = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert pick_device("auto") == "cuda" and threads == [1]


def test_a_record_names_the_gpu_and_its_libraries(monkeypatch):
    assert device_facts("cpu") == {"device": "cpu"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    facts = device_facts("cuda")
    assert (facts["device"], facts["gpu"], facts["cuda"]) == ("cuda", "NVIDIA H", "12.8") and "cudnn" in facts
