"""Training in several processes: what one process makes, bit for bit; and what is said where one of them fails."""

import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from sewing_world import TRAIN, make_world, settings
from test_train import assert_same
from workflow_run import Workflow

from cutsew.errors import UserError, in_one_line
from cutsew.storage.manifest import read_manifest
from cutsew.training import distributed as distributed_module
from cutsew.training.distributed import ProcessGroup, distributed
from cutsew.training.sewn_dataset import EpochSampler

TINY = {"kind": "open_clip", "open_clip": {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 64}}


def train(
    world: Path, out: Path, processes: int, *options: object, head: str = "adapter", path: str = "", **changes: object
):
    """Train on the command line, as the rule does; return the finished process."""
    command = [Workflow.warm.binaries / "python", "-P", "-m", "cutsew", "--log", out / "train.log"]
    command += [*training(world, out, head, **changes), "--processes", str(processes), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def training(world: Path, out: Path, head: str = "adapter", **changes: object) -> list[object]:
    """Return the command that trains."""
    chosen = settings(**changes)
    chosen["student"] = TINY
    if head == "linear":
        chosen["train"] = {"head": head, "steps": 10, "batch_size": 4, "sewn_epochs": 2, "rates": [1e-3, 1e-2]}
    command = ["train", world / "images.parquet", world / "fused.zarr", out / "adapter.safetensors"]
    command += ["--patches", world / "patches.parquet", "--settings", json.dumps(chosen)]
    return [*command, "--device", "cpu", "--workers", "1"]


@pytest.mark.parametrize(
    ("processes", "changes"),
    [
        (2, {"train__strong_weight": 0.7}),
        (3, {"train__batch_size": 2, "train__epochs": 4}),  # a batch smaller than the group; plain features kept
    ],
)
def test_several_processes_make_what_one_makes(tmp_path, processes, changes):
    world = make_world(tmp_path / "world")
    for folder, count in (("one", 1), ("several", processes)):
        done = train(world, tmp_path / folder, count, **changes)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / folder / "adapter.json").read_text())
        assert record["facts"]["processes"] == count
    assert_same(tmp_path / "one", tmp_path / "several")


@pytest.mark.parametrize("streams", [False, True])
def test_the_linear_head_of_several_processes_is_that_of_one(tmp_path, streams):
    """Ten steps are no whole number of epochs of three: workers must stop where the first process does."""
    world, path = make_world(tmp_path / "world"), tmp_path / "path"
    path.mkdir()
    (path / "sitecustomize.py").write_text(
        "from cutsew.training import features, linear\nlinear.LEAST_ROWS = 2\n"
        + ("features.KEPT_BYTES = linear.KEPT_BYTES = 1\n" if streams else "")
    )
    for folder, count in (("one", 1), ("several", 2)):
        done = train(world, tmp_path / folder, count, head="linear", path=str(path))
        assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "one", tmp_path / "several")
    facts = json.loads((tmp_path / "several" / "adapter.json").read_text())["facts"]
    assert (facts["processes"], facts["steps"], facts["sewn_epochs"]) == (2, 10, 4 if streams else 2)


def test_several_processes_leave_out_what_the_first_one_finds_on_disk(tmp_path):
    world = make_world(tmp_path / "world")
    features = ("--features", tmp_path / "features")
    changes = {"train__batch_size": 2, "train__epochs": 4}
    for folder, gone in (("first", []), ("second", ["plain/c", "weak/c/2"])):
        for name in gone:
            shutil.rmtree(next((tmp_path / "features").glob("*.zarr")) / name)
        done = train(world, tmp_path / folder, 2, *features, **changes)
        assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "first", tmp_path / "second")


def test_torchrun_over_two_nodes_makes_what_one_process_makes(tmp_path):
    """Two agents of torchrun on this machine stand for two nodes, each with one process."""
    world = make_world(tmp_path / "world")
    assert train(world, tmp_path / "one", 1).returncode == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    agent += ["--local-addr", "127.0.0.1", "-m", "cutsew", *training(world, tmp_path / "nodes")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    nodes = [subprocess.Popen(agent, **options) for _ in range(2)]
    printed = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(printed)
    assert_same(tmp_path / "one", tmp_path / "nodes")
    record = json.loads((tmp_path / "nodes" / "adapter.json").read_text())
    assert record["facts"]["processes"] == 2


@pytest.mark.parametrize(("here", "threads"), [("1", 8), ("2", 4)])
def test_threads_are_shared_by_the_processes_of_one_node(monkeypatch, here, threads):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": here}.items():
        monkeypatch.setenv(name, value)
    chosen = []
    monkeypatch.setattr(distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    assert ProcessGroup.init("cpu").size == 2
    assert chosen == [threads]


@pytest.fixture
def node(monkeypatch):
    """Make this process one of a training on a node with GPUs; return what it passes to torch."""

    def of(count, visible, processes=2, local=1, reserved=False, failure=None):
        passed = []

        def joined(backend, **options):
            if failure is not None:
                raise RuntimeError(failure)
            passed.append((backend, options))

        names = {"RANK": "0", "WORLD_SIZE": str(processes), "LOCAL_RANK": str(local)}
        for name, value in {**names, "LOCAL_WORLD_SIZE": str(processes)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", passed.append)
        monkeypatch.setattr(distributed_module, "list_visible_gpus", lambda: visible)
        monkeypatch.setattr(distributed_module, "has_reserved", lambda: reserved)
        monkeypatch.setattr(distributed, "init_process_group", joined)
        return passed

    return of


@pytest.mark.parametrize(
    ("count", "visible", "reserved", "local", "gpu"),
    [(1, ["1"], True, 1, 0), (2, [], False, 1, 1), (1, ["0"], False, 3, 0)],  # reserved; no driver; bound by srun
)
def test_a_process_joins_with_a_gpu_of_its_own_and_patience(node, count, visible, reserved, local, gpu):
    passed = node(count, visible, local=local, reserved=reserved)
    assert ProcessGroup.init("cuda").size == 2
    device = torch.device("cuda", gpu)
    assert passed == [device, ("nccl", {"timeout": timedelta(hours=12), "device_id": device})]


@pytest.mark.parametrize(
    ("count", "visible", "why"), [(4, ["0", "1"], "other jobs are using all remaining GPUs"), (2, [], "sees 2 GPUs")]
)
def test_two_processes_of_a_training_never_share_a_gpu(node, count, visible, why):
    passed = node(count, visible, processes=3)
    with pytest.raises(UserError, match=rf"^compute\.train_processes: .*{why}.*$"):
        ProcessGroup.init("cuda")
    assert passed == []


def test_processes_that_nccl_cannot_connect_end_in_one_line(node):
    said = "NCCL error in: NCCLUtils.cpp:77, invalid usage\nLast error:\nDuplicate GPU detected : rank 1 and rank 0"
    node(1, ["0"], failure=said)
    with pytest.raises(UserError, match=r"^train: .* NCCL \(Duplicate GPU detected : rank 1 and rank 0\); .*$"):
        ProcessGroup.init("cuda")
    node(1, ["0"], failure="CUDA error: out of memory")
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        ProcessGroup.init("cuda")
    assert in_one_line(caught.value).startswith("the GPU's memory does not suffice")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_ends_all_with_its_own_message(tmp_path, rank):
    world = make_world(tmp_path / "world")
    index = next(EpochSampler(TRAIN, 4, 1, 9).batches([0]))[rank][1]
    image = Path(read_manifest(world / "images.parquet", split="train")["path"].iloc[index])
    image.write_bytes(b"damaged")
    done = train(world, tmp_path / "out", 2)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count(f"cutsew: {image}: ") == 1
    assert not (tmp_path / "out" / "adapter.safetensors").exists()


@pytest.mark.parametrize(("count", "size"), [(4, 2), (5, 3), (1, 3), (7, 1)])
def test_shares_make_up_the_batch(count, size):
    batch = list(range(count))
    shares = [ProcessGroup(rank, size).shard(batch) for rank in range(size)]
    assert all(shares)  # a process never goes without work: the others wait for what it sends
    most = -(-count // size)
    laid_out = torch.tensor([[(share + [-1] * most)[i] for share in shares] for i in range(most)])
    assert laid_out.flatten()[:count].tolist() == batch


def test_a_group_of_one_passes_things_on():
    group = ProcessGroup()
    rows = torch.rand(3, 2)
    assert group.gather(rows, 3) is rows
    assert group.broadcast([5]) == [5]
    assert group.shard([1, 2]) == [1, 2]
    group.destroy()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_broken_connection_is_one_line(monkeypatch, rank):
    """In whichever call a process notices that another one has ended; what a full GPU says is passed on."""

    def broken(*_):
        raise RuntimeError("Connection closed by peer")

    def full(*_):
        raise RuntimeError("CUDA out of memory")

    group = ProcessGroup(rank, 2)
    calls = (lambda: group.broadcast([1]), lambda: group.gather(torch.zeros(1, 2), 2))
    ended = "^train: another worker process has exited; see its message$"
    for failure, error, message in ((broken, UserError, ended), (full, RuntimeError, "^CUDA out of memory$")):
        for name in ("broadcast", "gather"):
            monkeypatch.setattr(distributed, name, failure)
        for call in calls:
            with pytest.raises(error, match=message):
                call()
