"""What a job knows of the snakemake that started it: its process, and how it was called.

A job ends with that process, so that none writes on beside the next run's jobs.

Between the two stands a shell, which outlives a killed snakemake. So snakemake's process is named in the environment,
and each command waits for its end.
"""

import json
import os
import platform
import select
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OWNER = "CUTSEW_OWNER"
"""Environment variable: where the owning process runs, and its number."""

COMMAND = "CUTSEW_COMMAND"
"""Environment variable: the snakemake command, without targets, that the jobs belong to; records keep it."""

SNAKEMAKE = "snakemake --cores all"
"""The command where none is known, and what each runs."""

DEFAULT_CONFIGFILE = "config/config.yaml"
"""What the Snakefile reads where no --configfile is given."""

FOUND_BY_SNAKEMAKE = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
"""Where snakemake looks for a Snakefile that is not named."""


def announce(command: str | None = None) -> None:
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
    own = Path(sys.executable).with_name("snakemake")
    found = shutil.which("snakemake")
    if not own.exists() or (found is not None and Path(found).absolute() == own.absolute()):
        return "snakemake"
    return _from_here(own)


def settings_files(command: str) -> list[str]:
    """Name the files of settings and of sweeps that a command of `snakemake_command` reads, as it names them."""
    words, found, option = shlex.split(command), [], ""
    for word in words:
        if word.startswith("--"):
            option = word
        elif option == "--configfile":
            found.append(word)
        elif option == "--config" and word.startswith("sweep="):
            names = word.removeprefix("sweep=").split(",")
            found += [n if n.endswith((".yaml", ".yml")) else f"config/sweeps/{n}.yaml" for n in map(str.strip, names)]
    return found if "--configfile" in words else [DEFAULT_CONFIGFILE, *found]


def _from_here(path: str | Path) -> str:
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _as_yaml(value: object) -> str:
    """Word a value so that YAML reads it back; a word stays as it was typed."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


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
