# Helpers: where every run's artefacts are, and which settings a stage reads. All of it is cutsew.plan's knowledge.
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import get_args

import pandas as pd

from cutsew.artefacts.measures import as_text
from cutsew.artefacts.views import BOXES, CROPS, GLOBAL, chunk_file, chunk_record
from cutsew.checks import check_before_start
from cutsew.config.model import Reference
from cutsew.config.sweep import add_runs, read_sweep, sweep_files, variants_of
from cutsew.data.listing import listing_fingerprint, truth_fingerprint
from cutsew.errors import UserError
from cutsew.lock import claim
from cutsew.outputs import needed
from cutsew.owner import announce
from cutsew.plan import DEFAULT, STAGES, Plan

# `--config sweep=alpha` names config/sweeps/alpha.yaml beside the Snakefile, or a file by its path; several with commas.
SWEEPS = Path(workflow.basedir, "config", "sweeps")


def checked_plan(raw):
    """Refuse bad settings in one line, before any job starts; return the plan, and sweeps and their variants by name."""
    raw = dict(raw)
    asked = raw.pop("sweep", None)
    sweeps, variants = {}, {}
    try:
        for path in sweep_files(str(asked), SWEEPS) if asked is not None else ():
            sweeps[path.stem] = read_sweep(path)
            variants[path.stem] = variants_of(sweeps[path.stem], raw, str(path))
        for name, found in variants.items():
            raw = add_runs(raw, {v.run: v.changes for v in found}, name)
        plan = Plan(raw)
        check_before_start(*plan.runs.values())
    except UserError as error:
        sys.exit(f"cutsew: {error}")
    return plan, sweeps, variants


announce()
PLAN, ASKED, VARIANTS = checked_plan(config)
OWN_RUNS = [DEFAULT, *(config.get("runs") or {})]
DATASET = PLAN.config.dataset.name
DEVICE = PLAN.config.compute.device
BATCH_SIZE = PLAN.config.compute.batch_size
CHECKPOINT_SECONDS = str(PLAN.config.compute.checkpoint_seconds)


wildcard_constraints:
    dataset=DATASET.replace(".", r"\.").replace("+", r"\+"),
    run="|".join(name.replace(".", r"\.").replace("+", r"\+") for name in PLAN.runs),
    shard=r"\d+",
    block=r"\d+",
    reference="|".join(get_args(Reference)),
    sweep="|".join(map(re.escape, ASKED)) or "no-sweep",


def settings(stage):
    """Params: the version of a stage and the settings that it reads, as JSON."""

    def of_run(wildcards):
        return PLAN.params(wildcards.run, stage)

    return of_run


def version_of(stage):
    """Params: the version of a stage that reads no settings."""
    return STAGES[stage].version


def made(stage, name):
    """Input: an artefact of an earlier stage, in the folder of the run that makes it."""

    def for_run(wildcards):
        folder = PLAN.folder(wildcards.run, stage)
        return str(folder / name.format(**dict(wildcards.items())))

    return for_run


def rebuilt_weights(wildcards):
    """Input: the demo's tiny CLIP, where it is to be trained anew."""
    if not PLAN.runs[wildcards.run].demo.rebuild_teacher:
        return []
    return str(PLAN.folder(wildcards.run, "tiny_clip") / "cutsew-tiny.safetensors")


def scores_file(wildcards):
    """Input: the file of scores made elsewhere."""
    return str(PLAN.runs[wildcards.run].teacher.scores.file)


def world(wildcards):
    """Input: the demo's photos, which a rule makes; other photos are not tracked one by one."""
    if PLAN.runs[wildcards.run].dataset.kind != "demo":
        return []
    return str(
        PLAN.folder(wildcards.run, "demo_world")
        / "world"
        / "ImageSets"
        / "Main"
        / "train.txt"
    )


def photo_root(wildcards):
    """Params: the folder of the photos."""
    if PLAN.runs[wildcards.run].dataset.kind == "demo":
        return str(PLAN.folder(wildcards.run, "demo_world") / "world")
    return str(PLAN.runs[wildcards.run].dataset.root or ".")


def listing(wildcards):
    """Params: names, sizes and times of the photos, so that new and changed ones are noticed."""
    return listing_fingerprint(PLAN.runs[wildcards.run])


def truth_file(wildcards):
    """Input: the user's file of true labels, where there is one."""
    return str(PLAN.runs[wildcards.run].dataset.truth or "") or []


def truth_listing(wildcards):
    """Params: names, sizes and times of the annotations, so that edited ones are noticed."""
    return truth_fingerprint(PLAN.runs[wildcards.run])


def makes(run, stage):
    """Tell whether a run needs a stage: not all have true labels, a student, or a teacher that looks at the photos."""
    return stage in needed(PLAN.runs[run])


def photos(wildcards):
    """Input: the manifest, known once its checkpoint is done. Taken as ancient(): what counts are its digests."""
    owner = PLAN.owner(wildcards.run, "manifest")
    return checkpoints.manifest.get(dataset=wildcards.dataset, run=owner).output.images


def shards(run):
    """Read shards.csv: a row per shard with digests of its rows; empty as long as there is none."""
    table = PLAN.folder(run, "manifest") / "shards.csv"
    return (
        pd.read_csv(table, dtype=str)
        if table.exists()
        else pd.DataFrame(columns=["shard", "digest", "listed"])
    )


def photos_digest(wildcards):
    """Params: which photos there are, and in which split."""
    return digest_of(shards(wildcards.run)["listed"])


def contents_digest(wildcards):
    """Params: which photos there are, whatever their split."""
    return digest_of(shards(wildcards.run)["digest"])


def shard_digest(wildcards):
    """Params: which photos are in a shard, so that new ones encode only the shards that they fall in."""
    table = shards(wildcards.run)
    return digest_of(table.loc[table["shard"] == wildcards.shard, "digest"])


def digest_of(digests):
    """Digest digests."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]


def blocks(run):
    """Blocks of crop passes."""
    cut = PLAN.runs[run].cut
    return range(-(-cut.passes // cut.passes_per_job))


def passes_of_block(wildcards):
    """Params: how many passes a block holds; the last may hold fewer."""
    cut = PLAN.runs[wildcards.run].cut
    return min(
        cut.passes_per_job, cut.passes - int(wildcards.block) * cut.passes_per_job
    )


def chunks(wildcards):
    """Input: all chunk files of views.zarr and their records."""
    photos(wildcards)
    views = PLAN.folder(wildcards.run, "encode") / "views.zarr"
    for shard in shards(wildcards.run)["shard"]:
        yield str(chunk_file(views, GLOBAL, shard))
        yield str(chunk_record(views, shard))
        for block in blocks(wildcards.run):
            yield str(chunk_file(views, CROPS, shard, block))
            yield str(chunk_file(views, BOXES, shard, block))
            yield str(chunk_record(views, shard, block))


def patch_options(wildcards):
    """Params: the photos to paste, as command-line options; none where nothing is sewn."""
    return [word for path in pasted(wildcards) for word in ("--patches", path)]


def pasted(wildcards):
    """Input: the photos to paste, where photos are sewn."""
    if not PLAN.runs[wildcards.run].sew.enabled:
        return []
    return [str(PLAN.folder(wildcards.run, "select") / "patches.parquet")]


def labels_of_reference(wildcards):
    """Input: what a reference student is trained on."""
    if wildcards.reference == "zero_shot":
        return logits(wildcards)
    folder = PLAN.folder(wildcards.run, "reference_labels")
    return str(
        folder / "references" / wildcards.reference / "labels.zarr" / "zarr.json"
    )


def scores_of_references(run):
    """Name the scores of a run's reference students, by their kind."""
    folder = PLAN.folder(run, "reference_predict") / "references"
    return {
        kind: str(folder / kind / "scores.zarr" / "zarr.json")
        for kind in dict.fromkeys(PLAN.runs[run].references.kinds)
    }


def starting_labels(wildcards):
    """Input: the labels that training starts from."""
    stage, group = {
        "pseudo": ("correct", "pseudo.zarr"),
        "fused": ("fuse", "fused.zarr"),
        "zero_shot": (scoring(wildcards.run), "logits.zarr"),
    }[PLAN.runs[wildcards.run].train.labels]
    return str(PLAN.folder(wildcards.run, stage) / group / "zarr.json")


def salient_labels(wildcards):
    """Input: the labels that say how salient a photo is."""
    if PLAN.runs[wildcards.run].select.labels == "zero_shot":
        return logits(wildcards)
    return str(PLAN.folder(wildcards.run, "correct") / "pseudo.zarr" / "zarr.json")


def scoring(run):
    """Name the stage that makes logits.zarr."""
    return "score" if makes(run, "encode") else "import_scores"


def logits(wildcards):
    """Input: logits.zarr."""
    return str(
        PLAN.folder(wildcards.run, scoring(wildcards.run)) / "logits.zarr" / "zarr.json"
    )


def measured(wildcards):
    """Input: what there is to measure beside the labels of the cutting stages."""
    run = wildcards.run
    found = {}
    if makes(run, "train"):
        found["refined"] = str(PLAN.folder(run, "train") / "refined.zarr" / "zarr.json")
        found["scores"] = str(PLAN.folder(run, "predict") / "scores.zarr" / "zarr.json")
    if makes(run, "truth"):
        found["labels"] = str(PLAN.folder(run, "truth") / "labels.parquet")
    return found


def shown(wildcards):
    """Input: what the report shows beside what was measured."""
    run = wildcards.run
    found = measured(wildcards)
    if makes(run, "train"):
        found["history"] = str(PLAN.folder(run, "train") / "history.csv")
    if makes(run, "encode"):
        found["views"] = str(PLAN.folder(run, "encode") / "views.zarr" / "zarr.json")
    return found


def references(wildcards):
    """Input: the scores of the reference students."""
    return list(scores_of_references(wildcards.run).values())


def measure_options(wildcards):
    """Params: what there is to measure, as command-line options."""
    options = [(f"--{name}", path) for name, path in measured(wildcards).items()]
    options += [
        ("--reference", f"{kind}={path}")
        for kind, path in scores_of_references(wildcards.run).items()
    ]
    return [word for option in options for word in option]


def show_options(wildcards):
    """Params: what there is to show, as command-line options."""
    return [
        word for name, path in shown(wildcards).items() for word in (f"--{name}", path)
    ]


def of_own_runs(stage, name):
    """Name an artefact of every run of the config file, those of a sweep left out."""
    return [str(PLAN.folder(run, stage) / name) for run in OWN_RUNS]


def finished(wildcards):
    """Input of target `all`: the report of every run."""
    return of_own_runs("report", "report.html")


def labelled(wildcards):
    """Input of target `labels`: the pseudo-labels of every run."""
    return of_own_runs("correct", "pseudo.zarr/zarr.json")


def claim_results():
    """Refuse to work on results that another snakemake works on."""
    try:
        claim(Path("results", DATASET))
    except UserError as error:
        sys.exit(f"cutsew: {error}")


def print_tables():
    """Show what was measured of every run, and where."""
    for run in PLAN.runs:
        table = PLAN.folder(run, "evaluate") / "metrics.csv"
        if table.exists():
            print(f"\n{table}\n{as_text(pd.read_csv(table))}")
