"""The GPUs of one machine, or of one Slurm allocation, shared out among the parallel jobs of a local snakemake.

A job that a scheduler started with one GPU sees only that one, and there is nothing to share out.
"""

import fcntl
import logging
import os
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"

_held: list[int] = []
"""Open lock files of the devices that this process holds until it ends."""


def list_visible_gpus() -> list[str]:
    """Name the NVIDIA GPUs that processes started here see, without loading torch; none where there is no driver."""
    chosen = os.environ.get(VISIBLE)
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return [name for name in names if name and name != "-1"]
    return listed()


def listed() -> list[str]:
    """Return the numbers of the GPUs that the NVIDIA driver lists; none where there is no driver."""
    try:
        text = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, _ in enumerate(line for line in text.splitlines() if line.startswith("GPU "))]


def allocated() -> list[str]:
    """Name the GPUs that this process was given: those visible to it, or those of its Slurm job."""
    return list_visible_gpus() or [name for name in os.environ.get("SLURM_JOB_GPUS", "").split(",") if name]


def reserve_gpu() -> str | None:
    """Reserve one visible GPU for this process, until it ends, and hide the others; call it before CUDA starts.

    Locks are kept per Slurm allocation, whose GPUs are its own: two allocations may number theirs alike.

    Returns:
        The device's name; None if there are fewer than two GPUs, or if all are taken, which only happens next to
        another workflow.

    """
    devices = list_visible_gpus()
    if len(devices) < 2:
        return None
    job = os.environ.get("SLURM_JOB_ID")
    prefix = f"cutsew-gpu-{job}-" if job else "cutsew-gpu-"
    for device in devices:
        lock = _lock(Path(tempfile.gettempdir(), f"{prefix}{device.replace('/', '_')}.lock"))
        if lock is not None:
            _held.append(lock)
            os.environ[VISIBLE] = device
            return device
    log.warning("all %d GPUs are taken by other jobs; sharing the first", len(devices))
    return None


def _lock(path: Path) -> int | None:
    """Lock a file; the lock ends with the process. None where another process has it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:  # another user's
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file
