# Helpers: what a job asks a machine or a cluster for. The estimates are cutsew.sizing's; none of it changes a result.
from cutsew import gpu, sizing

# On one machine at most one job per visible GPU runs at a time; a cluster counts its own. The driver is asked once.
LOCAL_GPUS = 0 if DEVICE == "cpu" else len(gpu.visible())
if "local_gpu" not in workflow.global_resources:
    workflow.register_resource("local_gpu", LOCAL_GPUS)


def gpus(wildcards):
    """Resource: GPUs that a job asks a cluster for."""
    return 0 if DEVICE == "cpu" else 1


def local_gpus(wildcards):
    """Resource: GPUs that a job takes of this machine."""
    return min(1, LOCAL_GPUS) if workflow.local_exec else 0


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
            passes = round(cut.windows.scale**2)  # one larger look
    elif stage not in ("score", "import_scores", "fuse"):
        passes = 1
    if stage == "tagclip":
        photos = min(photos, size)
    if stage == "explain":
        shown = PLAN.runs[wildcards.run].explain
        photos = min(photos, shown.sample) + 2 * shown.pairs
    return sizing.Job(photos, passes, threads, gpus(wildcards) > 0)


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
    thresholds,
    reference_labels,
    evaluate,
    report,
    sweep_table,
