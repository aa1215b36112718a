"""One snakemake at a time works on a dataset's results, and one download on a folder.

Snakemake's own lock outlives a killed process and has to be removed by hand. This one is the kernel's: it ends with
the process that holds it.
"""

import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cutsew.errors import UserError

log = logging.getLogger(__name__)
NAME = ".lock"

_held: list[int] = []
"""Open files of the locks that this process holds until it ends."""


def claim(folder: Path) -> None:
    """Lock a dataset's results for this process, until it ends.

    Args:
        folder: results/<dataset>; made where it is not there.

    Raises:
        UserError: another process holds the lock, or the disk cannot be written.

    """
    _held.append(_locked(folder, "snakemake", "wait until it ends, or give this run another dataset.name"))


@contextmanager
def held(folder: Path, who: str, do: str) -> Iterator[None]:
    """Lock a folder while something is done in it; otherwise as `claim`.

    Args:
        folder: made where it is not there.
        who: what the lock's holder is called.
        do: what one does who finds it locked.

    """
    lock = _locked(folder, who, do)
    try:
        yield
    finally:
        folder.joinpath(NAME).unlink(missing_ok=True)
        os.close(lock)


def _locked(folder: Path, who: str, do: str) -> int:
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _lock(lock, folder, do)
        if not path.exists() or path.stat().st_ino != os.fstat(lock).st_ino:  # its last holder removed it meanwhile
            os.close(lock)
            return _locked(folder, who, do)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{who} (process {os.getpid()} on {platform.node()})\n".encode(), 0)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); mend that and run again") from None
    return lock


def _lock(lock: int, folder: Path, do: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise UserError(f"{folder}: {holder} is at work on it; {do}") from None
    except OSError as error:  # a file system without locks
        log.warning("%s: cannot be locked (%s); do not run two of these on it at once", folder, error.strerror)
