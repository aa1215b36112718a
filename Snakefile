# cutsew: from unlabelled photos to audited multi-label pseudo-labels and a small classifier.
# WHAT is made stands in config/, HOW AND WHERE in workflow/profiles/.
from snakemake.utils import min_version

min_version("9.9")


# The demo, where no --configfile is given: another config file stands alone and inherits none of the demo's settings.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/inputs_common.smk"
include: "workflow/rules/measured_common.smk"
include: "workflow/rules/resources_common.smk"
include: "workflow/rules/tagclip_common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/cut.smk"
include: "workflow/rules/tagclip.smk"
include: "workflow/rules/sew.smk"
include: "workflow/rules/reference.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/sweep_common.smk"
include: "workflow/rules/sweep.smk"


rule all:
    default_target: True
    input:
        finished,


rule labels:
    input:
        labelled,


onstart:
    claim_results()


onsuccess:
    print_tables()
