"""What stands in the results before a run: anything in the way of what the workflow writes, or a damaged shards.csv."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from cutsew.errors import UserError, blocked
from cutsew.pipeline.job_files import FOR_JOBS, SETTINGS
from cutsew.pipeline.outputs import OUTPUTS, SWEEPS, WEIGHTS
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.rule_inputs import shards
from cutsew.runtime import processes

FOLDERS = ("", ".zarr", ".records")
"""Suffixes of the artifacts that are folders."""

IN_A_RUN = {name: Path(name).suffix in FOLDERS for names in OUTPUTS.values() for name in names} | {"logs": True}
IN_A_DATASET = {processes.NAME: False, FOR_JOBS: False, WEIGHTS: False, SETTINGS: True, SWEEPS: True}
"""Name of what is written there -> whether it is a folder. Caches are left out: a run does without them."""


def refuse_blocked(plan: Plan) -> None:
    """Check the folders of a plan's results, one listing each.

    Raises:
        UserError: a line for each place where something else stands.

    """
    folder = plan.dataset_folder
    if line := blocked(folder, folder=True):
        raise UserError(line)
    errors = list(_blocked_in(folder, IN_A_DATASET | dict.fromkeys(plan.runs, True)))
    for run in plan.runs:
        errors += _blocked_in(folder / run, IN_A_RUN)
    if errors:
        raise UserError(*errors)


def refuse_damaged_shards(plan: Plan) -> None:
    """Read the shards.csv of every run: Snakemake would show an error in a rule's function as a traceback.

    Raises:
        UserError: one is damaged.

    """
    for run in plan.runs:
        shards(plan, run)


def _blocked_in(folder: Path, expected: Mapping[str, bool]) -> Iterator[str]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if expected.get(entry.name, entry.is_dir()) != entry.is_dir())
    for name in names:
        line = blocked(folder / name, folder=expected[name])
        if line:
            yield line
