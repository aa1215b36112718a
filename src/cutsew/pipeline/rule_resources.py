"""Resources of the rules' jobs, as functions of the plan and a job's wildcards; the estimates are in `sizing`.

`workflow/rules/common.smk` binds the plan to them. None of them changes a result.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cutsew.config import Config
from cutsew.config.cutting import teacher_cost
from cutsew.data.listing import last_count
from cutsew.pipeline import network_work, sizing
from cutsew.pipeline.memory_check import check_memory
from cutsew.pipeline.outputs import required_stages
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.rule_inputs import Wildcards, shards
from cutsew.runtime.gpus import list_visible_gpus
from cutsew.runtime.machine import usable_memory_mb


@dataclass(frozen=True)
class Site:
    """Where jobs run.

    Attributes:
        device: `compute.device`.
        gpus: GPUs of this machine.
        local: jobs run on this machine rather than on a cluster.

    """

    device: str
    gpus: int
    local: bool

    @property
    def computes_on_gpu(self) -> bool:
        """Whether jobs with a network run on a GPU."""
        return self.device != "cpu" and (self.gpus > 0 or not self.local)

    def requested_gpus(self, processes: int = 1) -> int:
        """Return the GPUs that a job requests from a cluster."""
        return 0 if self.device == "cpu" else processes

    def occupied_gpus(self, processes: int = 1) -> int:
        """Return the GPUs of this machine that a job occupies."""
        return min(processes, self.gpus) if self.local else 0


def visible_gpus(device: str) -> int:
    """Count this machine's GPUs, which takes a call of the driver; cpu has 0, mps 1."""
    if device == "mps":
        return 1
    return 0 if device == "cpu" else len(list_visible_gpus())


def megabytes(plan: Plan, wildcards: Wildcards, stage: str, threads: int, attempt: int, site: Site) -> int:
    """Return the memory of a stage's job in MB, more on each attempt."""
    return attempt * sizing.estimate_memory_mb(
        plan.runs[wildcards.run], stage, _job(plan, wildcards, stage, threads, site)
    )


def minutes(plan: Plan, wildcards: Wildcards, stage: str, threads: int, attempt: int, site: Site) -> int:
    """Return the time limit of a stage's job in minutes, more on each attempt."""
    return attempt * sizing.estimate_runtime_min(
        plan.runs[wildcards.run], stage, _job(plan, wildcards, stage, threads, site)
    )


def _job(plan: Plan, wildcards: Wildcards, stage: str, threads: int, site: Site) -> sizing.Job:
    block = getattr(wildcards, "block", None)
    return workload(plan, wildcards.run, stage, threads, block, gpu=site.computes_on_gpu)


def workload(plan: Plan, run: str, stage: str, threads: int, block: str | None = None, *, gpu: bool) -> sizing.Job:
    """Measure a job in images and passes; without a manifest or a listing, one full shard is assumed.

    Args:
        plan: all runs.
        run: the job's.
        stage: the job's.
        threads: its cores.
        block: the block of crop passes that it encodes; None for the first one, with the whole images, or none.
        gpu: whether it has a GPU.

    """
    config = plan.runs[run]
    images = _count_images(plan, run)
    shard = min(images, config.dataset.shard_size)
    passes = 1
    if stage == "encode":
        images = shard
        number = int(block or 0)
        passes = _views(config, number)
    elif stage == "tagclip":
        images = shard
    elif stage in ("score", "import_scores", "fuse"):
        passes = config.cut.num_passes + 1
    elif stage == "explain" and config.explain.kind != "none":
        images = min(images, config.explain.num_embeddings) + 2 * config.explain.num_maps
    return sizing.Job(images, passes, threads, gpu)


def _count_images(plan: Plan, run: str) -> int:
    table = shards(plan, run)
    if table:
        return sum(int(row["images"]) for row in table)
    return last_count(plan.runs[run]) or plan.runs[run].dataset.shard_size


def _views(config: Config, block: int) -> int:
    """Return the teacher's work for one image in an encoding job, in views of its own side, rounded up."""
    if config.cut.layout == "windows":  # all windows are cut from the features of one larger view
        side = network_work.teacher_side(config)
        return math.ceil(teacher_cost(config.cut.view_sides(side), side))
    return network_work.views(config, config.cut.passes_of(block)) + (block == 0)


def check_training_memory(plan: Plan, runs: Iterable[str], site: Site) -> list[str]:
    """Check that the trainings still to be run fit into this machine's memory; a cluster's scheduler checks its own.

    Returns:
        Warnings about trainings that may not fit, each once.

    Raises:
        UserError: a training does not fit; one line with the settings to change.

    """
    if not site.local:
        return []
    machine = usable_memory_mb()
    warnings = []
    for run in runs:
        trained = plan.on_disk(run, "train") / "adapter.safetensors"
        if "train" in required_stages(plan.runs[run]) and not trained.exists():
            job = workload(plan, run, "train", threads=2, gpu=site.computes_on_gpu)
            warnings.append(check_memory(plan.runs[run], job, machine))
    return list(dict.fromkeys(filter(None, warnings)))


LOGIN_NODE_STAGES = (
    *("truth", "seal", "seal_tagclip", "select", "targets", "override", "reference_labels"),
    *("thresholds", "labels_table", "evaluate", "report"),
)
"""Stages that run where snakemake runs, unless there are many images or classes: they hold the labels of all images."""


def fits_login_node(plan: Plan) -> bool:
    """Return whether `LOGIN_NODE_STAGES` of all runs need little memory."""
    for run, config in plan.runs.items():
        job = workload(plan, run, "report", threads=1, gpu=False)
        stages = required_stages(config).intersection(LOGIN_NODE_STAGES)
        if any(sizing.estimate_memory_mb(config, stage, job) > sizing.LOCAL_MB for stage in stages):
            return False
    return True
