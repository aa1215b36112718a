"""Which Slurm command Snakemake's executor uses to query its jobs.

`sacct`, its choice, works only with accounting. Without, each query fails; the executor takes that for a passing fault
and waits for ever.
"""

import re
import shutil
import subprocess
from typing import Protocol

from cutsew.errors import UserError

LEAST_AGE = 200
"""Seconds that Slurm has to remember a finished job; the executor's longest pause between two queries is 180."""

DEFAULT_INTERVAL = 40
"""Seconds before the executor's first query, where no option says otherwise."""

TIMEOUT = 60
"""Seconds that a command of Slurm may take to answer."""


class StatusSettings(Protocol):
    """The settings of `snakemake-executor-plugin-slurm` that are read and changed here."""

    status_command: str | None
    init_seconds_before_status_checks: int | None


def choose_status_command(settings: StatusSettings) -> str | None:
    """Switch the executor to `squeue` where `sacct` cannot answer.

    Args:
        settings: changed in place. The executor reads them at every query, so any time before the first job will do.

    Returns:
        One line that says what was changed and why; None where nothing was.

    Raises:
        UserError: Slurm keeps no accounts and forgets finished jobs sooner than the executor asks about them.

    """
    config = _controller_config()
    if config is None:  # sbatch will say why
        return None
    reason = _why_no_accounts(config)
    if reason is None:
        return None
    age = int(re.match(r"\d*", config.get("MinJobAge", ""))[0] or 0)  # type: ignore[index]
    has_sacct = shutil.which("sacct") is not None
    if age < LEAST_AGE and (has_sacct or age > 0):  # 0 is for ever, but the executor goes back to sacct then
        raise UserError(
            f"Slurm: sacct cannot answer ({reason}), and squeue forgets finished jobs after MinJobAge = {age} s; have "
            f"MinJobAge in slurm.conf set to {LEAST_AGE} or more, or run snakemake without --profile slurm in one job"
        )
    interval = settings.init_seconds_before_status_checks or DEFAULT_INTERVAL
    if age > 0:
        settings.init_seconds_before_status_checks = min(interval, age // 3)  # longer, and sacct would be called again
    if settings.status_command == "squeue":
        return None
    settings.status_command = "squeue"
    return f"Slurm: sacct cannot answer ({reason}); squeue is used instead"


def _controller_config() -> dict[str, str] | None:
    """Ask the controller for its configuration; None where it does not answer."""
    shown = _output("scontrol", "show", "config")
    if shown is None:
        return None
    pairs = (line.partition("=") for line in shown.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _why_no_accounts(config: dict[str, str]) -> str | None:
    """Say why `sacct` cannot answer; None where it can."""
    kind = config.get("AccountingStorageType", "")
    if kind in ("", "(null)", "accounting_storage/none"):
        return "accounting is off on this cluster"
    if _output("sacct", "--allocations", "--noheader", "--starttime", "now", "--format", "JobIdRaw") is None:
        return "it fails when queried for this user's jobs"
    return None


def _output(*command: str) -> str | None:
    """Run a command; None where it is missing, fails or takes too long."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
