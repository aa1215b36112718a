"""What has changed since the artifacts were made, and which stages a run will repeat, in words.

Snakemake says of each job that its params have changed. Here the records next to the artifacts are compared with the
plan, so that one reads `fuse.alpha 0.1 -> 0.3`. `change_reporter` hands this to Snakemake's log.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cutsew.errors import UserError, printable
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.outputs import OUTPUTS
from cutsew.pipeline.outputs import required_stages as stages_of
from cutsew.pipeline.plan import Plan
from cutsew.provenance.lineage import BadRecord, ProvenanceIndex, StoredRecord, plain, read_record
from cutsew.provenance.record import input_digest
from cutsew.provenance.setting_changes import MOST_ITEMS, command, image_differences, setting_differences, touch

MOST_LINES = 20
"""Lines of differences; the rest are counted."""

MOST_TARGETS = 20
"""Targets in a printed command."""

USER_FILES = {
    "truth": "true labels edited",
    "override": "corrections edited",
    "corrections": "corrections edited",
    "import_scores": "scores edited",
    "manifest": "list edited",
}
"""Stage -> what is said where a file of the user that it reads is newer than what it made."""


@dataclass(frozen=True)
class Job:
    """What snakemake has found of one job.

    Attributes:
        stage: as in pipeline.STAGES.
        run: whose folder it writes to.
        needed: it is going to run.
        reads: its input files.
        updated: those of them that are newer than its outputs, and are not about to be rewritten by another job.
        other_inputs: it reads other files than when it last ran.
        other_params: a param has changed, whichever.
        unknown: snakemake has lost how it last ran (.snakemake), and so does not notice other params and inputs.
        makes: its output files.

    """

    stage: str
    run: str
    needed: bool
    reads: tuple[Path, ...] = ()
    updated: tuple[Path, ...] = ()
    other_inputs: bool = False
    other_params: bool = False
    unknown: bool = False
    makes: tuple[Path, ...] = ()


def describe(plan: Plan, jobs: Sequence[Job]) -> list[str]:
    """Say what has changed and what will run; nothing at a first run, nor where only unfinished work is resumed.

    Args:
        plan: the settings now.
        jobs: all jobs of the targets.

    """
    needed = [job for job in jobs if job.needed]
    old = {run for run in {job.run for job in jobs} if any(_folder(plan, run).glob("*.json"))}
    return [*_of_needed(plan, jobs, needed, old), *_unnoticed(plan, [job for job in jobs if not job.needed])]


def _unnoticed(plan: Plan, jobs: Sequence[Job]) -> list[str]:
    """Say which results that are kept were made with other settings, where snakemake has lost its own notes."""
    changes: dict[str, None] = {}
    targets: dict[str, None] = {}
    for job in jobs:
        record = _record(plan, job) if job.unknown else None
        for line in _made_otherwise(plan, job, record) if record is not None else ():
            changes[line] = None
            targets[str(job.makes[0]) if job.makes else job.stage] = None
    if not changes:
        return []
    return [
        *(f"changed, but not rerun: {printable(line)}" for line in list(changes)[:MOST_LINES]),
        "snakemake's notes on how these results were made (.snakemake) are lost, so it keeps them. To rerun them: "
        f"{command()} --forcerun {' '.join(list(targets)[:MOST_TARGETS])}",
    ]


def _of_needed(plan: Plan, jobs: Sequence[Job], needed: Sequence[Job], old: set[str]) -> list[str]:
    """Say why jobs are going to run, and which."""
    if not old or not needed:
        return []
    stages: dict[str, set[str]] = {}
    for job in [*needed, *_not_in_the_graph(plan, needed)]:
        for line in _differences(plan, job) if job.run in old else ():
            stages.setdefault(line, set()).add(job.run)
    if not stages and (lines := _newer(plan, [job for job in needed if job.run in old])):
        return [*lines, _will_run(jobs)]
    for run in sorted({job.run for job in needed} - old):
        stages.setdefault(f"run {run}: new", set())
    if not stages:
        return []
    several = len({job.run for job in jobs}) > 1
    lines = [f"{line}{_of_runs(runs) if several and runs else ''}" for line, runs in stages.items()]
    rest = [f"and {len(lines) - MOST_LINES} more differences"] if len(lines) > MOST_LINES else []
    return [f"changed: {printable(line)}" for line in lines[:MOST_LINES]] + rest + [_will_run(jobs)]


def _not_in_the_graph(plan: Plan, jobs: Sequence[Job]) -> list[Job]:
    """Name the stages that snakemake knows of only once the manifest is made, where that runs first."""
    if not any(job.stage == "manifest" for job in jobs):
        return []
    known = {(job.stage, job.run) for job in jobs}
    stages = {(stage, plan.source_run(run, stage)) for run, config in plan.runs.items() for stage in stages_of(config)}
    return [Job(stage, run, needed=True) for stage, run in sorted(stages - known)]


def _of_runs(runs: set[str]) -> str:
    names = sorted(runs)
    return f" (run {names[0]})" if len(names) == 1 else f" ({len(names)} runs, {names[0]} first)"


def _will_run(jobs: Sequence[Job]) -> str:
    """Count the jobs of each stage that run, and of those that are kept."""
    parts = {}
    for needed in (True, False):
        counts = Counter(job.stage for job in jobs if job.needed == needed)
        named = [f"{stage} x{counts[stage]}" if counts[stage] > 1 else stage for stage in STAGES if counts[stage]]
        total = counts.total()
        parts[needed] = f"{', '.join(named)} ({total} job{'' if total == 1 else 's'})" if named else ""
    if any(job.stage == "manifest" and job.needed for job in jobs):
        return f"will run: {parts[True]}, then what depends on images whose content changed"
    return f"will run: {parts[True]}" + (f"; kept: {parts[False]}" if parts[False] else "")


def _differences(plan: Plan, job: Job) -> Iterator[str]:
    """Word in which ways a job differs from what its record says."""
    record = _record(plan, job)
    overrides = plan.runs[job.run].labels.overrides
    if record is None and job.stage in ("corrections", "override") and overrides is not None:
        yield f"corrections added ({overrides})"
    if record is None:
        return
    reported = False
    for line in _made_otherwise(plan, job, record):
        reported = True
        yield line
    if job.stage == "manifest" and not reported:
        reported = True
        yield from image_differences(plan.runs[job.run], record.file.with_name("images.parquet"), record)
    files = [path for path in job.updated if not _is_result(path) and _edited(record, path)]
    for path in files:
        yield f"{USER_FILES.get(job.stage, f'{job.stage}: input edited')} ({path})"
    if job.stage == "truth" and job.other_params and not reported and not files and not _images_differ(record):
        yield "annotations edited (true labels)"
    if job.other_params and not reported:
        yield from (f"weights replaced ({path})" for path in plan.weights(job.run, job.stage) if _since(record, path))
    if job.other_inputs:
        yield from _other_inputs(job, record)


def _edited(record: StoredRecord, path: Path) -> bool:
    """Check whether a file of the user, which is newer, has another content than a record names."""
    before = record.inputs.get(plain(path))
    try:
        return before is None or before != input_digest(path)
    except (OSError, UserError):
        return True


def _since(record: StoredRecord, path: Path) -> bool:
    """Check whether a file is newer than a record; weights replaced by older ones are, by the time of their inode."""
    try:
        started = datetime.fromisoformat(str(record.content.get("start"))).timestamp()
    except ValueError:
        return False
    status = path.stat()
    return max(status.st_mtime, status.st_ctime) > started


def _made_otherwise(plan: Plan, job: Job, record: StoredRecord) -> Iterator[str]:
    """Word how a stage's version and settings differ from those of its record."""
    version = record.content.get("version")
    if version != STAGES[job.stage].version:
        yield f"stage {job.stage}: version {version} -> {STAGES[job.stage].version}"
    yield from setting_differences(record.content.get("settings") or {}, plan.settings(job.run, job.stage))


def _images_differ(record: StoredRecord) -> bool:
    """Check whether a stage's images differ from the manifest's, which explains a changed param."""
    path = record.file.with_name("images.parquet")
    return any(entry == path for entry in record.inputs) and record.inputs[path] != _digest(path, record)


def _digest(manifest: Path, record: StoredRecord) -> str | None:
    result = _read(manifest.with_name("images.json"))
    return result.outputs.get(manifest) if result is not None else record.inputs.get(manifest)


def _other_inputs(job: Job, record: StoredRecord) -> Iterator[str]:
    """Say which results or files a stage reads instead of others; chunks of one Zarr count once."""
    now = {_name(path) for path in job.reads}
    before = {_name(path) for path in record.inputs}
    more, less = sorted(now - before), sorted(before - now)
    if more or less:
        instead = f" instead of {', '.join(less)}" if less else " too"
        yield (
            f"{job.stage} reads {', '.join(more)}{instead}" if more else f"{job.stage} reads {', '.join(less)} no more"
        )


def _name(path: Path) -> str:
    zarr = next((part for part in path.parts if part.endswith((".zarr", ".records"))), path.name)
    return zarr.replace(".records", ".zarr")


def _newer(plan: Plan, jobs: Sequence[Job]) -> list[str]:
    """Say why results are older than what they were made from, where nothing has changed: recomputed, or copied."""
    from cutsew.provenance.consistency import find_inconsistencies  # noqa: PLC0415  # a run without this question starts faster
    from cutsew.provenance.verification import transitive_records  # noqa: PLC0415

    touched = [job for job in jobs if job.updated]
    if not touched:
        return []
    traces = ProvenanceIndex()
    stale: dict[Path, str] = {}
    for folder in sorted({plain(_folder(plan, job.run)) for job in jobs}):
        for path, why, _ in find_inconsistencies(transitive_records(folder, traces), traces):
            stale.setdefault(path, why)
    if stale:
        return [f"changed: {os.path.relpath(path)}: {why}" for path, why in list(stale.items())[:MOST_ITEMS]]
    return [
        f"nothing has changed, but {_count(touched)} older than what they were made from, as after a copy without "
        f"their times (cp -a keeps them). To keep them, without running anything: {touch()}"
    ]


def _count(jobs: Sequence[Job]) -> str:
    stages = sorted({job.stage for job in jobs}, key=list(STAGES).index)
    return f"the results of {', '.join(stages[:MOST_ITEMS])} are"


def _folder(plan: Plan, run: str) -> Path:
    return Path("results", plan.config.dataset.name, run)


def _is_result(path: Path) -> bool:
    return bool(path.parts) and (path.parts[0] == "results" or path.is_relative_to(Path("results").absolute()))


def _record(plan: Plan, job: Job) -> StoredRecord | None:
    """Read the record of what a job made last, if it is there."""
    folder = _folder(plan, job.run)
    names: Iterable[Path]
    if job.stage in ("encode", "tagclip"):  # of thousands of jobs, so that the folder is not listed for each
        records = [path for path in job.makes if path.parent.name == OUTPUTS[job.stage][1]]
        names = records or sorted(folder.joinpath(OUTPUTS[job.stage][1]).glob("*.json"))[:1]
    elif job.stage.startswith("reference_"):
        name = {"reference_labels": "labels", "reference_train": "adapter", "reference_predict": "scores"}[job.stage]
        names = sorted(folder.glob(f"references/*/{name}.json"))[:1]
    else:
        names = [folder / name for name in OUTPUTS[job.stage] if name.endswith(".json")][:1]
    return next(filter(None, map(_read, names)), None)


def _read(path: Path) -> StoredRecord | None:
    try:
        return read_record(plain(path)) if path.is_file() else None
    except (BadRecord, UserError):
        return None
