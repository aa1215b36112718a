# Binds the plan to the functions of cutsew.pipeline that determine a job's inputs, params and resources.
import os
import sys
from functools import cache
from pathlib import Path
from typing import get_args

from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

from cutsew.config import with_command_line
from cutsew.config.evaluation import Reference
from cutsew.pipeline import rule_inputs, rule_resources
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.job_files import restore_command
from cutsew.pipeline.slurm_status import choose_status_command
from cutsew.pipeline.snakemake_call import (
    command_of_jobs,
    exit_in_one_line,
    require_container,
)
from cutsew.pipeline.workflow_plan import read_workflow_plan
from cutsew.provenance.change_reporter import ChangeReporter
from cutsew.runtime.processes import (
    set_owner_process,
    acquire_run_lock,
    snakemake_command,
)

RULES = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))

# A job on a node is started as `python -m snakemake`, which puts the working folder on Python's path, and its search for
# plugins lists each subfolder there, one of images too.
os.environ["PYTHONSAFEPATH"] = "1"


envvars:
    "PYTHONSAFEPATH",


# Jobs on nodes keep the command of the snakemake that submitted them.
set_owner_process(
    snakemake_command(
        workflow.main_snakefile,
        workflow.overwrite_configfiles,
        workflow.config_settings.config,
    )
    if workflow.is_main_process
    else None
)
# What --config sets; the workflow that uses this one as a module has options of its own.
COMMAND_LINE = (
    {} if workflow.modifier.skip_configfile else workflow.config_settings.config
)
with exit_in_one_line():
    WORKFLOW = read_workflow_plan(
        with_command_line(config, COMMAND_LINE),
        map(Path, workflow.configfiles),
        sweep_folder=RULES.parents[1] / "config" / "sweeps",
        # Snakemake adds the prefix of a module to inputs and outputs, but not to params.
        results=Path(workflow.modifier.path_modifier.replace_prefix("results/")),
        checks=workflow.is_main_process,
    )
PLAN = WORKFLOW.plan
if not workflow.is_main_process:
    restore_command(PLAN)
COMPUTE = PLAN.config.compute
DEVICE_GPUS = rule_resources.visible_gpus(COMPUTE.device)
if "local_gpu" not in workflow.global_resources:
    # On one machine at most one job per visible GPU runs at a time; a cluster counts its own.
    workflow.register_resource("local_gpu", DEVICE_GPUS)
if workflow.is_main_process:
    logger.addHandler(
        ChangeReporter(
            PLAN,
            dag=lambda: workflow.dag,
            dry=lambda: workflow.dryrun and not workflow.output_settings.quiet,
            say=logger.info,
        )
    )
    for note in WORKFLOW.correction_notes():
        print(f"cutsew: {note}", file=sys.stderr)
# On a cluster, short jobs with `localrule` run where snakemake runs.
FITS_LOGIN_NODE = rule_resources.fits_login_node(PLAN)
DEPLOYED_BY = workflow.deployment_settings.deployment_method
with exit_in_one_line():
    require_container(DeploymentMethod.APPTAINER in DEPLOYED_BY, COMPUTE.container)
CUTSEW = command_of_jobs(
    deployed=bool(
        {DeploymentMethod.CONDA, DeploymentMethod.APPTAINER} & set(DEPLOYED_BY)
    )
)


wildcard_constraints:
    dataset=rule_inputs.one_of([PLAN.config.dataset.name]),
    run=rule_inputs.one_of(PLAN.runs),
    shard=r"\d+",
    block=r"\d+",
    reference=rule_inputs.one_of(get_args(Reference)),
    sweep=rule_inputs.one_of(WORKFLOW.sweeps),


def cutsew(words):
    """Shell: a command. Composed here, because commands of a module do not see the names of its Snakefile."""
    return f"{CUTSEW} {words}"


def of_job(function, *args):
    """Input or params: a function of the plan and a job's wildcards."""

    def of_wildcards(wildcards):
        return function(PLAN, wildcards, *args)

    return of_wildcards


def artifact(stage, name):
    """Input: an artifact of an earlier stage."""
    return of_job(rule_inputs.artifact, stage, name)


def optional(stage, name):
    """Input: an artifact of an earlier stage that not all runs need."""
    return of_job(rule_inputs.optional_artifact, stage, name)


def manifest(wildcards):
    """Input: the manifest, after its checkpoint. Used as ancient(): params have digests of what it lists."""
    owner = PLAN.source_run(wildcards.run, "manifest")
    return checkpoints.manifest.get(dataset=wildcards.dataset, run=owner).output.images


def shard_files(stage):
    """Input: all chunk files and records of a stage that has jobs for each shard of the manifest."""

    def of_wildcards(wildcards):
        manifest(wildcards)
        return rule_inputs.shard_files(PLAN, wildcards, stage)

    return of_wildcards


def of_listing(function):
    """Params: a digest of a listing, which only the main process makes; its jobs on nodes read it from a file."""
    return of_job(function, workflow.is_main_process)


def user_file(setting):
    """Input: a file of the user's, which no prefix of a module moves."""

    def of_wildcards(wildcards):
        path = setting(PLAN.runs[wildcards.run])
        return local(str(path)) if path else []

    return of_wildcards


def settings(stage):
    """Params: the settings that a stage reads, and its version."""
    return of_job(rule_inputs.settings, stage)


def options(*positional):
    """Params: the job's inputs as options of its command, but for those named here."""

    def of_inputs(wildcards, input):
        return rule_inputs.options(input, positional)

    return of_inputs


def runs_scored_by(stage):
    """Wildcard constraint: the runs whose logits.zarr a stage writes."""
    return rule_inputs.one_of(run for run in PLAN.runs if PLAN.scored_by(run) == stage)


def runs_with_crops():
    """Wildcard constraint: the runs that cut crops."""
    return rule_inputs.one_of(
        name for name, run in PLAN.runs.items() if run.cut.num_passes
    )


def runs_without_crops():
    """Wildcard constraint: the runs whose teacher sees whole images alone."""
    return rule_inputs.one_of(
        name for name, run in PLAN.runs.items() if not run.cut.num_passes
    )


def site():
    """Where jobs run, which Snakemake knows only once it has parsed all rules."""
    return rule_resources.Site(COMPUTE.device, DEVICE_GPUS, workflow.local_exec)


def gpus(processes=1):
    """Resource: GPUs that a job requests from a cluster."""
    return lambda wildcards: site().requested_gpus(processes)


def local_gpus(processes=1):
    """Resource: GPUs that a job occupies on this machine."""
    return lambda wildcards: site().occupied_gpus(processes)


def all_cores(most):
    """Threads of a job that has the machine to itself; on a cluster two, unless --set-threads says otherwise."""

    def of_site(wildcards):
        # A job on a node is told of all of its cores, not of those that it was given.
        alone = site().local and workflow.is_main_process
        return min(most, workflow.resource_settings.cores or 2) if alone else 2

    return of_site


def resource(function, stage):
    """Resource: an estimate for a stage's job."""

    def of_attempt(wildcards, threads, attempt):
        return function(PLAN, wildcards, stage, threads, attempt, site())

    return of_attempt


def megabytes(stage):
    """Resource: memory."""
    return resource(rule_resources.megabytes, stage)


def minutes(stage):
    """Resource: time limit."""
    return resource(rule_resources.minutes, stage)


@cache
def check_memory(*runs):
    """Refuse trainings that do not fit into this machine's memory, and warn of those that may not, once."""
    for warning in rule_resources.check_training_memory(PLAN, runs, site()):
        print(f"cutsew: warning: {warning}", file=sys.stderr)


def target(files, runs):
    """Input of a target: its files, if the trainings of its runs fit into this machine's memory."""

    def of_wildcards(wildcards):
        with exit_in_one_line():
            found = files()
            if workflow.is_main_process:
                check_memory(*runs)
        return found

    return of_wildcards
