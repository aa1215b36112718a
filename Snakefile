# cutsew: from unlabeled images to audited multi-label pseudo-labels and a small classifier.
# WHAT is made stands in config/, HOW AND WHERE in workflow/profiles/.
from pathlib import Path

from cutsew.pipeline.snakemake_call import default_config
from snakemake.utils import min_version

min_version("9.9")


# Without --configfile, config/config.yaml of the working directory, else the demo beside this file. Any other config file
# stands alone and inherits none of its settings; so do those of a workflow that uses this one as a module.
if not (workflow.overwrite_configfiles or workflow.modifier.skip_configfile):

    configfile: default_config(Path(), Path(workflow.basedir))


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/cut.smk"
include: "workflow/rules/tagclip.smk"
include: "workflow/rules/sew.smk"
include: "workflow/rules/reference.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/sweep.smk"


rule all:
    default_target: True
    input:
        target(WORKFLOW.results, runs=WORKFLOW.own_runs),


rule labels:
    input:
        WORKFLOW.labels(),


onstart:
    with exit_in_one_line():
        acquire_run_lock(PLAN.dataset_folder)
        if workflow.executor_plugin.name == "slurm":
            change = choose_status_command(workflow.executor_settings)
            if change is not None:
                print(f"cutsew: {change}", file=sys.stderr)


onsuccess:
    for table in WORKFLOW.metrics_as_text():
        print(f"\n{table}")
