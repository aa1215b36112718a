"""A job ends with the snakemake that started it, so that none writes on beside the next run's jobs.

Between the two stands a shell, which outlives a killed snakemake. So snakemake's process is named in the environment,
and each command waits for its end.
"""

import os
import platform
import select
import signal
import threading
from pathlib import Path

OWNER = "CUTSEW_OWNER"
"""Environment variable: where the owning process runs, and its number."""


def announce() -> None:
    """Make this process the owner of the commands that it starts, directly or through shells."""
    os.environ[OWNER] = f"{_place()} {os.getpid()}"


def end_with_owner() -> None:
    """Kill this process as soon as its owner ends; without one, or with one on another machine, do nothing."""
    place, _, number = os.environ.get(OWNER, "").rpartition(" ")
    if place and place == _place():
        _end_with(int(number))


def end_with_parent() -> None:
    """Kill this process as soon as its parent ends: for worker processes, which would wait for work for ever."""
    _end_with(os.getppid())


def _place() -> str:
    """Name the machine and its space of process numbers; empty where they cannot be told (only Linux can)."""
    space = Path("/proc/self/ns/pid")
    return f"{platform.node()} {space.readlink()}" if hasattr(os, "pidfd_open") and space.is_symlink() else ""


def _end_with(number: int) -> None:
    if not hasattr(os, "pidfd_open"):
        return
    try:
        process = os.pidfd_open(number)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
    except OSError:
        return  # a kernel that cannot
    else:
        threading.Thread(target=_wait, args=(process,), daemon=True).start()


def _wait(process: int) -> None:
    select.select([process], [], [])  # readable once the process has ended
    os.kill(os.getpid(), signal.SIGKILL)
