"""Whether a training fits into a machine's memory, known before it starts."""

from cutsew.config import Config
from cutsew.config.training import AdapterConfig
from cutsew.errors import UserError
from cutsew.pipeline.sizing import Job, estimate_memory_mb, head_megabytes

SMALL_GROUP: int = AdapterConfig.model_fields["query_group"].default
"""Queries that attend to each other by default; larger groups take more memory than they are known to be worth."""
NO_ROOM = 0.95
"""Share of a machine's memory beyond which a job certainly finds no room: the system has the rest."""


def check_memory(config: Config, job: Job, machine: int) -> str | None:
    """Check that training and the student's answers fit into a machine's memory.

    Args:
        config: of a run that trains.
        job: the training on that machine.
        machine: its memory, in MB.

    Returns:
        A warning where it may not suffice; None where it does.

    Raises:
        UserError: it certainly does not; one line with the settings to change.

    """
    stages = ("train", "predict")
    for stage in stages:
        lacking = _lacks(config, stage, job, machine)
        if lacking is not None:
            raise UserError(lacking)
    requested, stage = max((estimate_memory_mb(config, stage, job), stage) for stage in stages)
    if requested <= machine:
        return None
    return (
        f"{stage} may need up to {requested / 1000:,.1f} GB of memory, and this machine has {machine / 1000:,.1f} "
        "GB; if it is killed, set train.batch_size or compute.batch_size lower, or train.head: linear"
    )


def _lacks(config: Config, stage: str, job: Job, machine: int) -> str | None:
    """Say which setting to change where `train` or `predict` certainly does not fit into a machine's memory.

    Args:
        config: of the run.
        stage: train or predict.
        job: its job.
        machine: MB of the machine.

    Returns:
        One line; None where it may fit.

    """
    needed = head_megabytes(config, stage, job)
    if needed <= NO_ROOM * machine:
        return None
    ways = ["name fewer classes", "set train.head: linear"]
    if config.train.head == "adapter" and min(len(config.classes), config.train.adapter.query_group) > SMALL_GROUP:
        ways = [f"set train.adapter.query_group to {SMALL_GROUP}", *ways]
    if stage == "train":
        table = job.images * len(config.classes) * 20 // 10**6
        batch = min(job.images, config.train.batch_size)
        fits = int((NO_ROOM * machine - table) / max(1, needed - table) * batch)
        ways = [f"set train.batch_size to {fits} or less", *ways] if fits > 0 else ways
    setting = f"train.batch_size {config.train.batch_size}" if stage == "train" else f"{job.threads} threads"
    return (
        f"{stage}: {len(config.classes):,} classes with {setting} need about {needed / 1000:,.1f} GB of memory, and "
        f"this machine has {machine / 1000:,.1f} GB; {', or '.join(ways)}"
    )
