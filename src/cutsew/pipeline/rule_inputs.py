"""Inputs and params of the rules, as functions of the plan and a job's wildcards.

`workflow/rules/common.smk` binds the plan to them. Inputs are paths as rules write them, to which Snakemake adds the
prefix of a module; params that hold paths hold them as they are on disk. The number of shards is known only after the
manifest's checkpoint, so a rule that depends on it takes the manifest as input too.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from cutsew.config import Config
from cutsew.data.listing import listing_fingerprint, truth_fingerprint
from cutsew.errors import UserError
from cutsew.pipeline import job_files
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.outputs import OUTPUTS, SHARD_FILES, WEIGHTS, required_stages
from cutsew.pipeline.plan import Plan
from cutsew.storage.file_digests import remembered_digest
from cutsew.storage.manifest import SHARDS, read_shards
from cutsew.storage.tables import read_record

STAGE_OF = {"logits": "zero_shot", "scores": "student"}
"""Zarr -> the stage whose logits it holds, where their names differ."""

DIGEST = 16
"""Hexadecimal digits of a digest in params."""


class Wildcards(Protocol):
    """Wildcards of a job of one run."""

    run: str


class ShardWildcards(Wildcards, Protocol):
    """Wildcards of a job that reads one shard of the images."""

    shard: str


class ReferenceWildcards(Wildcards, Protocol):
    """Wildcards of a job of one reference student."""

    reference: str


class JobInputs(Protocol):
    """The named inputs of a job: a path, or a list of paths, by name."""

    def items(self) -> Iterable[tuple[str, str | list[str]]]:
        """Iterate over names and paths."""


# Inputs


def artifact(plan: Plan, wildcards: Wildcards, stage: str, name: str) -> str:
    """Return an artifact of a stage, in the folder of the run that owns it.

    Args:
        plan: all runs.
        wildcards: of the job that reads it.
        stage: the stage that writes it.
        name: its path in the run's folder, which may contain `{reference}`. A Zarr group is represented by its
            metadata file, which is written last.

    """
    path = plan.folder(wildcards.run, stage) / name.format(reference=getattr(wildcards, "reference", None))
    return str(path / "zarr.json" if path.suffix == ".zarr" else path)


def optional_artifact(plan: Plan, wildcards: Wildcards, stage: str, name: str) -> list[str]:
    """Return an artifact as `artifact` does; empty where the run does not need the stage that writes it."""
    return [artifact(plan, wildcards, stage, name)] if stage in required_stages(plan.runs[wildcards.run]) else []


def logits(plan: Plan, wildcards: Wildcards) -> str:
    """Return the logits that the teacher computed, or that were imported."""
    return artifact(plan, wildcards, plan.scored_by(wildcards.run), "logits.zarr")


def labels(plan: Plan, wildcards: Wildcards, stage: str) -> str:
    """Return the labels that `targets`, `override` or `train` reads."""
    source = plan.labels_read(wildcards.run, stage, plan.trains_on_corrections(wildcards.run))
    return artifact(plan, wildcards, source, OUTPUTS[source][0])


def salience_labels(plan: Plan, wildcards: Wildcards) -> str:
    """Return the labels by which `select` ranks images."""
    if plan.runs[wildcards.run].select.labels == "zero_shot":
        return logits(plan, wildcards)
    return artifact(plan, wildcards, "correct", "pseudo.zarr")


def reference_labels(plan: Plan, wildcards: ReferenceWildcards) -> str:
    """Return the labels that a reference student is trained on."""
    if wildcards.reference == "zero_shot":
        return logits(plan, wildcards)
    return artifact(plan, wildcards, "reference_labels", "references/{reference}/labels.zarr")


def reference_scores(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Return the scores of a run's reference students."""
    kinds = dict.fromkeys(plan.runs[wildcards.run].references.kinds)
    return [artifact(plan, wildcards, "reference_predict", f"references/{kind}/scores.zarr") for kind in kinds]


def overridden(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Return the labels with manual corrections; empty where none of a training image was corrected."""
    if not plan.trains_on_corrections(wildcards.run):
        return []
    return optional_artifact(plan, wildcards, "override", "overridden.zarr")


def last_labels(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Return the final labels of the training images and those of the held-out ones."""
    stages = required_stages(plan.runs[wildcards.run])
    train = ("targets", "targets.zarr") if "targets" in stages else ("correct", "pseudo.zarr")
    train = ("train", "refined.zarr") if "train" in stages else train
    order = {"ensemble": "ensemble.zarr", "tiles": "tiles.zarr", "predict": "scores.zarr", "fuse": "fused.zarr"}
    held_out = next((stage, name) for stage, name in order.items() if stage in stages)
    return [artifact(plan, wildcards, *source) for source in (train, held_out)]


def stages_with_thresholds(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Return the logits of every stage that has decision thresholds of its own, in the order of the pipeline."""
    optional = (("targets", "targets.zarr"), ("train", "refined.zarr"), ("predict", "scores.zarr"))
    made = [path for source in optional for path in optional_artifact(plan, wildcards, *source)]
    always = [artifact(plan, wildcards, *source) for source in (("fuse", "fused.zarr"), ("correct", "pseudo.zarr"))]
    return [logits(plan, wildcards), *always, *overridden(plan, wildcards), *made]


def shard_files(plan: Plan, wildcards: Wildcards, stage: str) -> Iterator[str]:
    """Iterate over all chunk files of a stage's Zarr and the records of the jobs that write them."""
    group = plan.folder(wildcards.run, stage) / OUTPUTS[stage][0]
    for row in shards(plan, wildcards.run):
        yield from map(str, SHARD_FILES[stage](group, plan.runs[wildcards.run], int(row["shard"])))


# Params. A job reruns when they change.


def settings(plan: Plan, wildcards: Wildcards, stage: str) -> str:
    """Return a stage's version and the settings that it reads, as JSON, or the file that holds it where it is long."""
    return job_files.settings_argument(plan, plan.params(wildcards.run, stage))


def version(_plan: Plan, _wildcards: Wildcards, stage: str) -> int:
    """Return the version of a stage that reads no settings."""
    return STAGES[stage].version


def options(inputs: JobInputs, positional: Iterable[str]) -> list[str]:
    """Return a job's inputs as options of its command: `--name path`, an option for each of several paths.

    Paths of input `reference` are preceded by the kind of reference student (`--reference kind=path`), those of `stage`
    by the stage's name in metrics.csv.

    Args:
        inputs: the job's.
        positional: names of inputs that are no options.

    """
    words = []
    for name, paths in inputs.items():
        if name not in positional:
            for path in [paths] if isinstance(paths, str) else paths:
                words += [f"--{name}", _with_key(name, path)]
    return words


def _with_key(name: str, path: str) -> str:
    group = Path(path).parent  # of .../zarr.json
    if name == "reference":
        return f"{group.parent.name}={path}"
    if name == "stage":
        return f"{STAGE_OF.get(group.stem, group.stem)}={path}"
    return path


def image_root(plan: Plan, wildcards: Wildcards) -> str:
    """Return the folder of the images."""
    if plan.runs[wildcards.run].dataset.kind == "demo":
        return str(plan.on_disk(wildcards.run, "demo_world") / "world")
    return str(plan.runs[wildcards.run].dataset.location or ".")


_listings: dict[str, str] = {}
"""Signature of a stage -> the digest of what it lists, of all that this process listed."""


def image_listing(plan: Plan, wildcards: Wildcards, lists: bool) -> str:
    """Return a digest of the images' names, sizes and times, which changes when images are added or edited.

    Args:
        plan: all runs.
        wildcards: of the job.
        lists: list the images. Otherwise the digest is the one that the main process saved before its first job:
            Snakemake evaluates the params of the manifest's rule in every job, which would list all images each time.

    """
    return _listing(plan, wildcards.run, "manifest", listing_fingerprint, lists)


def truth_listing(plan: Plan, wildcards: Wildcards, lists: bool) -> str:
    """Return a digest of the annotations' names, sizes and times, which changes when they are edited."""
    return _listing(plan, wildcards.run, "truth", truth_fingerprint, lists)


def _listing(plan: Plan, run: str, stage: str, fingerprint: Callable[[Config], str], lists: bool) -> str:
    signature = plan.signature(run, stage)
    saved = None if lists else job_files.read(plan).get(signature)
    if saved is None:
        saved = _listings[signature] = fingerprint(plan.runs[run])
    return saved


def save_for_jobs(plan: Plan) -> None:
    """Hand this process's command and listings, and settings that no command can hold, over to its jobs."""
    job_files.write(plan, _listings)


def weights_digests(plan: Plan, wildcards: Wildcards, stage: str) -> list[str]:
    """Return digests of the local weights that a stage reads."""
    cache = plan.dataset_folder / WEIGHTS
    return [remembered_digest(path, cache) for path in plan.weights(wildcards.run, stage)]


def training_corrections(plan: Plan, wildcards: Wildcards) -> str:
    """Return a digest of the corrections of training images; those of held-out images train nothing."""
    return plan.training_corrections(wildcards.run)


def split_digest(plan: Plan, wildcards: Wildcards) -> str:
    """Return a digest of the images and their splits."""
    return _digest(row["listed"] for row in shards(plan, wildcards.run))


def placement_digest(plan: Plan, wildcards: Wildcards) -> str:
    """Return a digest of the images, their splits and their paths, which the table of labels holds."""
    return _digest(row["placed"] for row in shards(plan, wildcards.run))


def files_digest(plan: Plan, wildcards: Wildcards) -> str:
    """Return a digest of what became of every file, of those too that are no images; empty before the manifest."""
    try:
        facts = read_record(plan.on_disk(wildcards.run, "manifest") / "images.json", "facts")
    except UserError:
        return ""  # the report shows no files either
    return _digest([json.dumps(facts, sort_keys=True)])


def settings_digest(plan: Plan, wildcards: Wildcards) -> str:
    """Return a digest of the settings of all of a run's stages, which the report lists."""
    made = sorted(required_stages(plan.runs[wildcards.run]))
    return _digest(plan.params(wildcards.run, stage) for stage in made)


def content_digest(plan: Plan, wildcards: Wildcards) -> str:
    """Return a digest of the images, whatever their splits."""
    return _digest(row["digest"] for row in shards(plan, wildcards.run))


def shard_digest(plan: Plan, wildcards: ShardWildcards) -> str:
    """Return a digest of the images of one shard, so that new images rerun only the shards that they are in."""
    return _digest(row["digest"] for row in shards(plan, wildcards.run) if row["shard"] == wildcards.shard)


def _digest(digests: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:DIGEST]


def block_passes(plan: Plan, wildcards: Wildcards) -> int:
    """Return the number of passes that an encoding job embeds: those of its block, without a wildcard the first."""
    return len(plan.runs[wildcards.run].cut.passes_of(int(getattr(wildcards, "block", 0))))


# Shards and wildcard constraints


def shards(plan: Plan, run: str) -> tuple[dict[str, str], ...]:
    """Read a run's shards.csv: one row per shard; empty before the manifest is written."""
    table = plan.on_disk(run, "manifest") / SHARDS
    return _read_shards(table, table.stat().st_mtime_ns) if table.exists() else ()


@lru_cache(maxsize=64)
def _read_shards(table: Path, _mtime: int) -> tuple[dict[str, str], ...]:
    """Read the table once for all jobs, and again when it changes."""
    return read_shards(table)


def one_of(names: Iterable[str]) -> str:
    """Return a wildcard constraint that matches the names, or nothing if there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"
