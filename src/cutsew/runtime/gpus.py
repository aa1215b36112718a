"""The GPUs of one machine, or of one Slurm allocation, shared out among the parallel jobs of a local snakemake.

A job that a scheduler started with one GPU sees only that one, and there is nothing to share out.
"""

import fcntl
import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
LOCKS = Path("/tmp")  # noqa: S108 - not a temporary file of this process: every user's locks are here

_held: list[int] = []
"""Open lock files of the devices that this process holds until it ends."""


def list_visible_gpus() -> list[str]:
    """Name the NVIDIA GPUs that processes started here see, without loading torch; none where there is no driver."""
    chosen = os.environ.get(VISIBLE)
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return [name for name in names if name and name != "-1"]
    return list_driver_gpus()


def list_driver_gpus() -> list[str]:
    """Name the GPUs that the NVIDIA driver lists: by number, or slices of a divided one (MIG) by UUID."""
    return list(_driver_list())


def _driver_list() -> dict[str, str]:
    """Ask the driver for its GPUs: what CUDA_VISIBLE_DEVICES calls each, and its UUID; none without a driver."""
    try:
        text = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    devices: dict[str, str] = {}
    number = ""
    for line in text.splitlines():
        uuid = re.search(r"UUID: ([^)]+)", line)
        if line.startswith("GPU "):
            number = line.removeprefix("GPU ").partition(":")[0]
            devices[number] = uuid[1] if uuid else ""
        elif uuid and uuid[1].startswith("MIG-"):
            devices.pop(number, None)  # CUDA sees a divided GPU only as its slices
            devices[uuid[1]] = uuid[1]
    return devices


def list_allocated_gpus() -> list[str]:
    """Name the GPUs that this process was given: those visible to it, or those of its Slurm job."""
    return list_visible_gpus() or [name for name in os.environ.get("SLURM_JOB_GPUS", "").split(",") if name]


def reserve_gpu() -> str | None:
    """Reserve one visible GPU for this process, until it ends, and hide the others; call it before CUDA starts.

    A lock is named after the GPU's UUID, since two Slurm allocations may number theirs alike. Without one it is named
    after the allocation and the number.

    Returns:
        The device's name; None if there are fewer than two GPUs, or if all are taken, which only happens next to
        another workflow.

    """
    known = _driver_list() if VISIBLE not in os.environ or len(list_visible_gpus()) > 1 else {}
    devices = list_visible_gpus() if VISIBLE in os.environ else list(known)
    if len(devices) < 2:
        return None
    for device in devices:
        lock = _lock(_lock_folder() / _lock_name(device, known))
        if lock is not None:
            _held.append(lock)
            if VISIBLE not in os.environ:
                os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order of the driver's numbers
            os.environ[VISIBLE] = device
            return device
    log.warning("all %d GPUs are taken by other jobs; sharing the first", len(devices))
    return None


def has_reserved() -> bool:
    """Return whether `reserve_gpu` has reserved a GPU for this process."""
    return bool(_held)


def _lock_name(device: str, known: Mapping[str, str]) -> str:
    """Name the lock of a device that is given by number or by the beginning of its UUID."""
    whole = [uuid for uuid in known.values() if device.startswith(("GPU-", "MIG-")) and uuid.startswith(device)]
    uuid = known.get(device) or (whole[0] if whole else "")
    job = os.environ.get("SLURM_JOB_ID")
    name = uuid or (f"{job}-{device}" if job else device)
    return f"cutsew-gpu-{name.replace('/', '_')}.lock"


def _lock_folder() -> Path:
    """Return where the locks are: one folder for all users and jobs, whose TMPDIR may differ."""
    return LOCKS if os.access(LOCKS, os.W_OK) else Path(tempfile.gettempdir())


def _lock(path: Path) -> int | None:
    """Lock a file; the lock ends with the process. None where another process has it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:  # another user's
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    else:
        if os.fstat(file).st_uid == os.getuid():
            os.fchmod(file, 0o666)  # whatever the umask
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file
