"""What the main process hands over to its jobs in files: neither an environment nor a command line holds everything.

Not every scheduler exports the environment to nodes, and Linux refuses a command with an argument of 128 KiB, which the
names of some thousand classes take.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.plan import Plan
from cutsew.runtime.processes import COMMAND
from cutsew.storage.atomic import write_text

FOR_JOBS = ".jobs.json"
"""In a dataset's results: the main process's command, and the digests of its listings."""

SETTINGS = ".settings"
"""In a dataset's results: the folder of settings that are too long for a command, each file named after its digest."""

LONGEST = 64 * 1024
"""Bytes of quoted settings in a command, which has other words too and goes to the shell as one argument."""


def write(plan: Plan, listings: Mapping[str, str]) -> None:
    """Write what jobs need, before the first one starts.

    Args:
        plan: all runs.
        listings: signature of a stage -> the digest of what it lists.

    """
    content = {COMMAND: os.environ.get(COMMAND, ""), **listings}
    write_text(plan.dataset_folder / FOR_JOBS, json.dumps(content))
    for run, config in plan.runs.items():
        if len(config.model_dump_json()) < LONGEST // 6:  # quoting makes up to five bytes of one, and JSON escapes some
            continue
        for stage in STAGES:
            text = plan.params(run, stage)
            if _is_long(text):
                write_text(_settings_file(plan, text), text)


def read(plan: Plan) -> dict[str, str]:
    """Read the command and the digests; nothing where there is no such file, as for a job that is typed by hand."""
    try:
        content = json.loads((plan.dataset_folder / FOR_JOBS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def restore_command(plan: Plan) -> None:
    """Take over the main process's command, which records name, where a job's environment lacks it."""
    command = read(plan).get(COMMAND)
    if command:
        os.environ.setdefault(COMMAND, command)


def settings_argument(plan: Plan, text: str) -> str:
    """Return settings as the option `--settings` takes them: as JSON, or `@` and a file that `write` writes."""
    return f"@{_settings_file(plan, text)}" if _is_long(text) else text


def _is_long(text: str) -> bool:
    return len(shlex.quote(text).encode()) > LONGEST


def _settings_file(plan: Plan, text: str) -> Path:
    return plan.dataset_folder / SETTINGS / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
