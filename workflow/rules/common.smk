# Helpers: the plan, and which settings a stage reads. All of it is cutsew.pipeline.plan's knowledge.
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import get_args

import pandas as pd
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

from cutsew.storage.result_tables import as_text
from cutsew.provenance.changes import ChangeReporter
from cutsew.pipeline.preflight import check_before_start, check_open_files
from cutsew.config.yaml_file import class_list_hints
from cutsew.config.schema import Reference
from cutsew.config.yaml_file import read_config
from cutsew.config.sweep import add_runs, read_sweep, sweep_files, variants_of
from cutsew.errors import UserError
from cutsew.runtime.processes import claim
from cutsew.pipeline.outputs import OUTPUTS, needed
from cutsew.runtime.processes import announce, snakemake_command
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.plan import DEFAULT, Plan
from cutsew.pipeline.snakemake_call import choose_status_command

# Jobs run the package of the very Python that runs Snakemake, whatever PATH says on their node; with `--sdm conda` that of
# the rule's environment. `-P`: a file of the working directory, such as random.py, hides no module.
CUTSEW = f"{shlex.quote(sys.executable)} -P -m cutsew".replace("{", "{{").replace(
    "}", "}}"
)
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    CUTSEW = "cutsew"


def cutsew(words):
    """Return a rule's command. Composed here: a shell command of a module does not see the names of its Snakefile."""
    return f"{CUTSEW} {words}"


# Of a module with `prefix:` Snakemake moves inputs and outputs there, but not params, nor what is read here.
PATH_MODIFIER = workflow.modifier.path_modifier

# `--config sweep=alpha` names config/sweeps/alpha.yaml of this workflow, or a file by its path; several with commas.
RULES = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))
SWEEP_FOLDER = RULES.parents[1] / "config" / "sweeps"


def on_disk(path):
    """Return where a path that the rules name lies: below a module's prefix, where there is one."""
    return PATH_MODIFIER.replace_prefix(str(path))


def own_file(path):
    """Input: a file of the user's, which no prefix of a module moves; none where none is set."""
    return local(str(path)) if path else []


def checked_plan(raw):
    """Refuse bad settings in one line, before any job starts; return the plan, and sweeps and their variants by name."""
    raw = dict(raw)
    asked = raw.pop("sweep", None)
    sweeps, variants = {}, {}
    try:
        check_open_files()
        # Snakemake has read them, but of a key that stands twice it took the last without a word.
        for path in filter(os.path.isfile, workflow.configfiles):
            read_config(Path(path))
            for hint in (
                class_list_hints(Path(path)) if workflow.is_main_process else ()
            ):
                print(f"hint: {hint}", file=sys.stderr)
        for path in sweep_files(str(asked), SWEEP_FOLDER) if asked is not None else ():
            sweeps[path.stem] = read_sweep(path)
            variants[path.stem] = variants_of(sweeps[path.stem], raw, str(path))
        for name, found in variants.items():
            raw = add_runs(raw, {v.run: v.changes for v in found}, name)
        plan = Plan(raw, results=Path(on_disk("results/")))
        check_before_start(*plan.runs.values())
    except UserError as error:
        sys.exit(f"cutsew: {error}")
    return plan, sweeps, variants


def report_changes():
    """Say next to the table of jobs what has changed."""
    logger.addHandler(
        ChangeReporter(
            PLAN,
            dag=lambda: workflow.dag,
            dry=lambda: workflow.dryrun and not workflow.output_settings.quiet,
            say=logger.info,
        )
    )


# Jobs on nodes keep the command of the snakemake that submitted them.
announce(
    snakemake_command(
        workflow.main_snakefile,
        workflow.overwrite_configfiles,
        workflow.config_settings.config,
    )
    if workflow.is_main_process
    else None
)
PLAN, SWEEPS, VARIANTS = checked_plan(config)
if workflow.is_main_process:
    report_changes()
OWN_RUNS = [DEFAULT, *(config.get("runs") or {})]
DATASET = PLAN.config.dataset.name
DEVICE = PLAN.config.compute.device
BATCH_SIZE = PLAN.config.compute.batch_size
TRAIN_PROCESSES = PLAN.config.compute.train_processes
CHECKPOINT_SECONDS = str(PLAN.config.compute.checkpoint_seconds)
CACHE_FEATURES = str(PLAN.config.compute.cache_features)


wildcard_constraints:
    dataset=DATASET.replace(".", r"\.").replace("+", r"\+"),
    run="|".join(name.replace(".", r"\.").replace("+", r"\+") for name in PLAN.runs),
    shard=r"\d+",
    block=r"\d+",
    reference="|".join(get_args(Reference)),
    sweep="|".join(map(re.escape, SWEEPS)) or "no-sweep",


def settings(stage):
    """Params: the version of a stage and the settings that it reads, as JSON."""

    def of_run(wildcards):
        return PLAN.params(wildcards.run, stage)

    return of_run


def version_of(stage):
    """Params: the version of a stage that reads no settings."""
    return STAGES[stage].version


def makes(run, stage):
    """Tell whether a run needs a stage: not all have true labels, a student, or a teacher that looks at the photos."""
    return stage in needed(PLAN.runs[run])


def runs_scored_by(stage):
    """Wildcard constraint: the runs whose logits.zarr a stage writes; both stages write the same file."""
    runs = [re.escape(run) for run in PLAN.runs if PLAN.scored_by(run) == stage]
    return "|".join(runs) or "no-run"


def claim_results():
    """Refuse to work on results that another snakemake works on."""
    try:
        claim(Path(on_disk(f"results/{DATASET}")))
    except UserError as error:
        sys.exit(f"cutsew: {error}")


def poll_slurm():
    """Ask about Slurm's jobs in a way that this cluster answers."""
    if workflow.executor_plugin.name != "slurm":
        return
    try:
        changed = choose_status_command(workflow.executor_settings)
    except UserError as error:
        sys.exit(f"cutsew: {error}")
    if changed is not None:
        print(f"cutsew: {changed}", file=sys.stderr)


def tell_corrections():
    """Say of each run's corrections how many labels they are, and whether anything is trained on them."""
    for told in dict.fromkeys(PLAN.told_of_corrections(run) for run in PLAN.runs):
        if told:
            print(f"cutsew: {told}", file=sys.stderr)


def print_tables():
    """Show what was measured of every run, and where."""
    for run in PLAN.runs:
        table = Path(on_disk(PLAN.folder(run, "evaluate") / "metrics.csv"))
        if table.exists():
            print(f"\n{table}\n{as_text(pd.read_csv(table))}")


if workflow.is_main_process:
    tell_corrections()
