"""The processes that train together: each computes the features of a shard of every batch, the first one learns.

The backbone is frozen and takes nearly all of the time; the adapter's step is a few thousandths of it. So only features
travel, from the other processes to the first, and what is learnt is what one process would learn: on a CPU bit for bit.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from cutsew.errors import UserError, out_of_gpu_memory
from cutsew.runtime.gpus import has_reserved, list_visible_gpus
from cutsew.runtime.processes import exit_with_parent

log = logging.getLogger(__name__)
T = TypeVar("T")
RANK, SIZE, LOCAL, LOCAL_SIZE = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
"""Environment variables of a process in a group; torchrun sets them too, also over several nodes."""

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others. NCCL's ten minutes are too short where the first process reads
thousands of steps from its feature cache; a process that dies ends the others by itself."""

GRACE = 10
"""Seconds that the first process has to end by itself after a worker failed."""


class ProcessGroup:
    """The processes that train together, as one of them sees it.

    Attributes:
        rank: 0 learns; the others compute features for it.
        size: how many processes there are.

    """

    def __init__(self, rank: int = 0, size: int = 1, device: str = "cpu") -> None:
        self.rank, self.size, self._device = rank, size, device

    @classmethod
    def init(cls, device: str) -> "ProcessGroup":
        """Join the processes that the environment names; a group of one where it names none.

        Args:
            device: of every process: cpu or cuda; mps where there is one process.

        """
        rank, size = int(os.environ.get(RANK, "0")), int(os.environ.get(SIZE, "1"))
        if size == 1:
            return cls(device=device)
        if rank > 0:
            exit_with_parent()
        if device == "cuda":
            gpu = _own_gpu(size)
            torch.cuda.set_device(gpu)
            _connect_through_nccl(gpu)
            return cls(rank, size, device)
        here = int(os.environ.get(LOCAL_SIZE, size))  # processes that share this machine's cores
        torch.set_num_threads(max(1, torch.get_num_threads() // here))
        distributed.init_process_group("gloo", timeout=PATIENCE)
        return cls(rank, size, device)

    def shard(self, items: list[T]) -> list[T]:
        """Return this process's part of a batch, every size-th item; where there is none, a spare one to work on."""
        return items[self.rank :: self.size] or items[:1]

    def gather(self, rows: Tensor, total: int) -> Tensor | None:
        """Put a batch together from the shards of all processes.

        Args:
            rows: (n, ...) of this process's shard.
            total: B, rows of the whole batch.

        Returns:
            (B, ...) in the batch's order in the first process, None in the others.

        Raises:
            UserError: another process has ended.

        """
        if self.size == 1:
            return rows
        most = -(-total // self.size)
        sent = rows.new_zeros(most, *rows.shape[1:])
        sent[: len(rows)] = rows
        sent = sent.to(self._device)
        received = None if self.rank else [torch.empty_like(sent) for _ in range(self.size)]
        with _named_failures():
            distributed.gather(sent, received)
        return None if received is None else torch.stack(received, dim=1).flatten(0, 1)[:total]

    def broadcast(self, numbers: list[int]) -> list[int]:
        """Return the first process's numbers; the others give as many.

        Raises:
            UserError: another process has ended.

        """
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, device=self._device)
        with _named_failures():
            distributed.broadcast(values, 0)
        received: list[int] = values.tolist()
        return received

    def destroy(self) -> None:
        """Part from the others."""
        if self.size > 1:
            distributed.destroy_process_group()


SINGLE = ProcessGroup()
"""A process that trains alone."""


def _own_gpu(size: int) -> torch.device:
    """Return a GPU that no other process of this group has.

    Raises:
        UserError: there is none.

    """
    here = int(os.environ.get(LOCAL_SIZE, size))
    visible, count = list_visible_gpus(), torch.cuda.device_count()
    if here > 1 and len(visible) > 1 and not has_reserved():
        raise UserError(
            "compute.train_processes: other jobs are using all remaining GPUs of this machine; lower it, or "
            "wait for them"
        )
    if 1 < count < here:
        raise UserError(f"compute.train_processes: {here} processes here, and torch sees {count} GPUs; lower it")
    return torch.device("cuda", int(os.environ.get(LOCAL, "0")) % count)


def _connect_through_nccl(gpu: torch.device) -> None:
    try:
        distributed.init_process_group("nccl", timeout=PATIENCE, device_id=gpu)
    except RuntimeError as error:
        if out_of_gpu_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UserError(
            f"train: the training processes cannot connect through NCCL ({reason[:200]}); set NCCL_DEBUG=WARN "
            "for details, or compute.train_processes: 1 to do without NCCL"
        ) from None


@contextmanager
def _named_failures() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if out_of_gpu_memory(error):
            raise
        raise UserError("train: another worker process has exited; see its message") from None


def launch_workers(processes: int, device: str) -> None:
    """Start this command once more for each further process, and make this one the first of the group.

    It does nothing where a group was started already, by this function or by torchrun.

    Raises:
        UserError: there are fewer GPUs than processes.

    """
    if processes == 1 or SIZE in os.environ:
        return
    gpus = [] if device == "cpu" else list_visible_gpus()
    if gpus and len(gpus) < processes:
        raise UserError(f"compute.train_processes: {processes} is more than the {len(gpus)} GPUs here; lower it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        SIZE: str(processes),
        LOCAL_SIZE: str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    for rank in range(1, processes):
        names = {RANK: str(rank), LOCAL: str(rank)}
        worker = subprocess.Popen([sys.executable, "-P", "-m", "cutsew", *sys.argv[1:]], env={**os.environ, **names})
        threading.Thread(target=_watch, args=(worker,), daemon=True).start()
    os.environ |= {RANK: "0", LOCAL: "0"}


def _watch(worker: subprocess.Popen[bytes]) -> None:
    """End this process some time after a worker failed: on GPUs it might wait for the worker's features forever."""
    if worker.wait() != 0:
        time.sleep(GRACE)
        log.error("cutsew: train: process %d of this training ended with status %s", worker.pid, worker.returncode)
        os._exit(1)
