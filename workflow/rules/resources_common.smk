# Helpers: what a job asks a machine or a cluster for. The estimates are cutsew.pipeline.sizing's; none of it changes a result.
import math
from types import SimpleNamespace

from cutsew.runtime import gpus
from cutsew.pipeline import sizing
from cutsew.pipeline.preflight import check_memory
from cutsew.config.method import teacher_cost

# On one machine at most one job per visible GPU runs at a time; a cluster counts its own. The driver is asked once.
LOCAL_GPUS = 0 if DEVICE == "cpu" else len(gpus.visible())
if "local_gpu" not in workflow.global_resources:
    workflow.register_resource("local_gpu", LOCAL_GPUS)


def gpus(wildcards):
    """Resource: GPUs that a job asks a cluster for."""
    return 0 if DEVICE == "cpu" else 1


def local_gpus(wildcards):
    """Resource: GPUs that a job takes of this machine."""
    return min(1, LOCAL_GPUS) if workflow.local_exec else 0


def on_gpu():
    """Tell whether jobs with a network in them compute on a GPU."""
    return DEVICE != "cpu" and (LOCAL_GPUS > 0 or not workflow.local_exec)


def training_gpus(wildcards):
    """Resource: GPUs that a training asks a cluster for."""
    return TRAIN_PROCESSES * gpus(wildcards)


def local_training_gpus(wildcards):
    """Resource: GPUs that a training takes of this machine."""
    return min(TRAIN_PROCESSES, LOCAL_GPUS) if workflow.local_exec else 0


def job_of(stage, wildcards, threads):
    """Measure a job: photos, passes, threads, device."""
    table = shards(wildcards.run)
    size = PLAN.runs[wildcards.run].dataset.shard_size
    photos = int(table["images"].astype(int).sum()) if len(table) else size
    passes = PLAN.runs[wildcards.run].cut.num_passes + 1
    if stage == "encode":
        photos = min(photos, size)
        passes = passes_of_block(wildcards) if "block" in wildcards.keys() else 1
        cut = PLAN.runs[wildcards.run].cut
        if cut.layout == "windows" and "block" in wildcards.keys():
            side = sizing.teacher_side(PLAN.runs[wildcards.run])
            larger = cut.looks(side)[1:]  # one look
            passes = math.ceil(teacher_cost(larger, side))
        elif "block" in wildcards.keys():
            first = int(wildcards.block) * cut.block_size
            passes = sizing.views(
                PLAN.runs[wildcards.run], range(first, first + passes)
            )
    elif stage not in ("score", "import_scores", "fuse"):
        passes = 1
    if stage == "tagclip":
        photos = min(photos, size)
    if stage == "explain":
        shown = PLAN.runs[wildcards.run].explain
        photos = min(photos, shown.sample) + 2 * shown.pairs
    return sizing.Job(photos, passes, threads, on_gpu())


def megabytes(stage):
    """Resource: memory of a stage's job, more with every attempt."""

    def of_job(wildcards, threads, attempt):
        job = job_of(stage, wildcards, threads)
        return attempt * sizing.megabytes(PLAN.runs[wildcards.run], stage, job)

    return of_job


def minutes(stage):
    """Resource: time limit of a stage's job, more with every attempt."""

    def of_job(wildcards, threads, attempt):
        job = job_of(stage, wildcards, threads)
        return attempt * sizing.minutes(PLAN.runs[wildcards.run], stage, job)

    return of_job


@cache
def refuse_too_large(runs):
    """Refuse trainings that do not fit into this machine's memory, before any job; none where jobs run elsewhere."""
    if not (workflow.is_main_process and workflow.local_exec):
        return
    machine = sizing.machine_megabytes()
    warnings = {}
    for run in runs:
        trained = PLAN.on_disk(run, "train") / "adapter.safetensors"
        if not makes(run, "train") or trained.exists():
            continue
        job = job_of("train", SimpleNamespace(run=run), 2)
        try:
            warnings[check_memory(PLAN.runs[run], job, machine)] = run
        except UserError as error:
            sys.exit(f"cutsew: {error}")
    for text in filter(None, warnings):
        print(f"cutsew: warning: {text}", file=sys.stderr)


def small(run):
    """Tell whether what is measured and shown of a run takes little memory, so that it may run where snakemake runs."""
    job = job_of("report", SimpleNamespace(run=run), 1)
    return all(
        sizing.megabytes(PLAN.runs[run], stage, job) <= sizing.LOCAL_MB
        for stage in ("thresholds", "labels_table", "evaluate", "report")
    )


def feature_folder(wildcards):
    """Resource: the folder of the features that trainings keep."""
    return on_disk(f"results/{wildcards.dataset}/features")


# Seconds each, even for a million photos: on a cluster they run where snakemake runs.
localrules:
    all,
    labels,
    sweep,
    download,
    truth,
    seal,
    seal_tagclip,
    targets,
    override,
    select,
    reference_labels,
    sweep_table,


if all(map(small, PLAN.runs)):

    # They hold all photos' labels, and the report counts pairs of classes: large ones are jobs with memory of their own.
    localrules:
        thresholds,
        labels_table,
        evaluate,
        report,
