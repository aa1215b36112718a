"""The processes around a job: the snakemake that started it, and locks against a second one.

A job exits with its snakemake, so that it does not go on writing next to the jobs of the following run. The shell
between the two outlives a killed snakemake. So snakemake's process is named in the environment, and each command waits
for its end.

One snakemake at a time works on a dataset's results, and one download on a folder. Snakemake's own lock outlives a
killed process and has to be removed by hand. This one is the kernel's: it ends with the process that holds it.
"""

import fcntl
import json
import logging
import os
import platform
import select
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cutsew.errors import UserError, in_the_way

OWNER = "CUTSEW_OWNER"
"""Environment variable: where the owning process runs, and its number."""

COMMAND = "CUTSEW_COMMAND"
"""Environment variable: the snakemake command, without targets, that the jobs belong to; records keep it."""

SNAKEMAKE = "snakemake --cores all"
"""The command where none is known; every other one begins with these options."""

DEFAULT_CONFIGFILE = "config/config.yaml"
"""What the Snakefile reads where no --configfile is given."""

FOUND_BY_SNAKEMAKE = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
"""Where snakemake looks for a Snakefile that is not named."""


def set_owner_process(command: str | None = None) -> None:
    """Make this process the owner of the commands that it starts, directly or through shells.

    Args:
        command: the snakemake command that records name; None keeps the inherited one, as in a job on a node.

    """
    os.environ[OWNER] = f"{_place()} {os.getpid()}"
    if command is not None:
        os.environ[COMMAND] = command


def snakemake_command(
    snakefile: str | Path, configfiles: Sequence[str | Path] = (), config: Mapping[str, Any] | None = None
) -> str:
    """Return a snakemake command for the working folder, quoted for a shell, to which options and targets are added.

    Args:
        snakefile: the main Snakefile; left out where snakemake finds it by itself.
        configfiles: those given with --configfile.
        config: settings given with --config.

    """
    words = [snakemake_program(), *SNAKEMAKE.split()[1:]]
    found = next((Path(name) for name in FOUND_BY_SNAKEMAKE if Path(name).is_file()), None)
    if found is None or found.resolve() != Path(snakefile).resolve():
        words += ["--snakefile", _from_here(snakefile)]
    if configfiles:
        words += ["--configfile", *map(_from_here, configfiles)]
    if config:
        words += ["--config", *(f"{key}={_as_yaml(value)}" for key, value in config.items())]
    return shlex.join(words)


def snakemake_program() -> str:
    """Return how to call the snakemake of this Python: by name where `PATH` leads to it, else by its path."""
    program = Path(sys.executable).with_name("snakemake")
    on_path = shutil.which("snakemake")
    if not program.exists() or (on_path is not None and Path(on_path).absolute() == program.absolute()):
        return "snakemake"
    return _from_here(program)


def settings_files(command: str) -> list[str]:
    """Name the files of settings and of sweeps that a command of `snakemake_command` reads, as it names them."""
    words, files, option = shlex.split(command), [], ""
    for word in words:
        if word.startswith("--"):
            option = word
        elif option == "--configfile":
            files.append(word)
        elif option == "--config" and word.startswith("sweep="):
            names = word.removeprefix("sweep=").split(",")
            files += [n if n.endswith((".yaml", ".yml")) else f"config/sweeps/{n}.yaml" for n in map(str.strip, names)]
    return files if "--configfile" in words else [DEFAULT_CONFIGFILE, *files]


def _from_here(path: str | Path) -> str:
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _as_yaml(value: object) -> str:
    """Word a value so that YAML reads it back; a word stays as it was typed."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def exit_with_owner() -> None:
    """Kill this process as soon as its owner ends; without one, or with one on another machine, do nothing."""
    place, _, number = os.environ.get(OWNER, "").rpartition(" ")
    if place and place == _place():
        _end_with(int(number))


def exit_with_parent() -> None:
    """Kill this process as soon as its parent ends: for worker processes, which would wait for work for ever."""
    _end_with(os.getppid())


def _place() -> str:
    """Identify the machine and its PID namespace; empty where this is not possible (other than Linux)."""
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


log = logging.getLogger(__name__)
NAME = ".lock"

_held: list[int] = []
"""Open files of the locks that this process holds until it ends."""


def acquire_run_lock(folder: Path) -> None:
    """Lock a dataset's results for this process, until it ends.

    Args:
        folder: results/<dataset>; made where it is not there.

    Raises:
        UserError: another process holds the lock, or the disk cannot be written.

    """
    _held.append(_locked(folder, "snakemake", "wait for it to finish, or give this run another dataset.name"))


@contextmanager
def directory_lock(folder: Path, who: str, do: str) -> Iterator[None]:
    """Lock a folder while something is done in it; errors as of `acquire_run_lock`.

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
        if not path.exists() or path.stat().st_ino != os.fstat(lock).st_ino:  # its last holder has removed it
            os.close(lock)
            return _locked(folder, who, do)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{who} (process {os.getpid()} on {platform.node()})\n".encode(), 0)
    except OSError as error:
        reason = in_the_way(error) or f"{folder}: cannot be written ({error.strerror}); fix this and rerun"
        raise UserError(reason) from None
    return lock


def _lock(lock: int, folder: Path, do: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise UserError(f"{folder}: {holder} is using it; {do}") from None
    except OSError as error:  # a file system without locks
        log.warning("%s: cannot be locked (%s); do not run two of these on it at once", folder, error.strerror)
