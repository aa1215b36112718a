"""What has changed, printed next to Snakemake's table of jobs."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.plan import Plan
from cutsew.provenance.changes import Job, describe

log = logging.getLogger(__name__)

NOTHING = "Nothing to be done"
"""How snakemake's message starts where it has no job to run."""


class ChangeReporter(logging.Handler):
    """Prints what has changed next to snakemake's table of jobs: before the first job, and at the end of a dry run.

    Args:
        plan: the settings now.
        dag: returns snakemake's graph of jobs, once it is built.
        dry: whether this is a dry run, which shows its table again at its end.
        say: prints a line.

    """

    def __init__(
        self, plan: Plan, dag: Callable[[], Any], dry: Callable[[], bool], say: Callable[[str], object]
    ) -> None:
        super().__init__()
        self._plan, self._dag, self._dry, self._say = plan, dag, dry, say
        self._lines: list[str] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Print where the record is snakemake's table of jobs; whatever fails here never stops a run."""
        idle = record.getMessage().startswith(NOTHING)
        if not idle and getattr(getattr(record, "event", None), "name", None) != "RUN_INFO":
            return
        if self._lines is None:
            self._lines = self._describe()
            if self._dry() and not idle:
                return
        lines, self._lines = self._lines, []
        for line in lines:
            self._say(line)

    def _describe(self) -> list[str]:
        try:
            return describe(self._plan, list(jobs_of(self._dag(), self._plan)))
        except Exception:  # noqa: BLE001  # only words are lost
            log.debug("it is unknown what has changed", exc_info=True)
            return []


def jobs_of(dag: Any, plan: Plan) -> Iterator[Job]:  # noqa: ANN401  # snakemake is no dependency of the package
    """Read the jobs of the stages from snakemake's graph."""
    for job in dag.jobs:
        stage = _stage_of(job.rule.name)
        wildcards = dict(job.wildcards.items())
        if stage is None or wildcards.get("dataset") != plan.config.dataset.name or "run" not in wildcards:
            continue
        reason = dag.reason(job)
        yield Job(
            stage,
            wildcards["run"],
            bool(dag.needrun(job)),
            tuple(Path(str(file)) for file in job.input),
            tuple(Path(str(file)) for file in reason.updated_input - reason.updated_input_run),
            bool(reason.input_changed),
            bool(reason.params_changed),
            bool(reason.no_metadata),
            tuple(Path(str(file)) for file in job.output),
        )


def _stage_of(rule: str) -> str | None:
    """Name a rule's stage; a rule of a module may have a prefix."""
    names = {**{stage: stage for stage in STAGES}, "encode_images": "encode", "encode_crops": "encode"}
    fitting = [name for name in names if rule == name or rule.endswith(f"_{name}")]
    return names[max(fitting, key=len)] if fitting else None
