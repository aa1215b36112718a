# Helpers: what the rules read, in whichever run's folder it is.
import hashlib
from functools import cache

from cutsew.storage.zarr_writer import remembered_digest
from cutsew.storage.zarr_layout import (
    BOXES,
    CROPS,
    GLOBAL,
    view_chunk_file,
    view_chunk_record,
)
from cutsew.data.listing import listing_fingerprint, truth_fingerprint


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


def weights_digest(stage):
    """Params: digests of the weights on this machine that a stage reads, so that replaced ones are noticed."""

    def of_run(wildcards):
        memory = Path(on_disk(f"results/{DATASET}/.weights.json"))
        return [
            remembered_digest(path, memory)
            for path in PLAN.weights(wildcards.run, stage)
        ]

    return of_run


def scores_file(wildcards):
    """Input: the file of scores made elsewhere."""
    return own_file(PLAN.runs[wildcards.run].teacher.scores.file)


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


def downloaded(wildcards):
    """Input: the record of the download, where photos that are not there are fetched."""
    if not makes(wildcards.run, "download"):
        return []
    return str(PLAN.folder(wildcards.run, "download") / "download.json")


def photo_root(wildcards):
    """Params: the folder of the photos."""
    if PLAN.runs[wildcards.run].dataset.kind == "demo":
        return on_disk(PLAN.folder(wildcards.run, "demo_world") / "world")
    return str(PLAN.runs[wildcards.run].dataset.root or ".")


def listing(wildcards):
    """Params: names, sizes and times of the photos, so that new and changed ones are noticed."""
    return listing_fingerprint(PLAN.runs[wildcards.run])


def truth_file(wildcards):
    """Input: the user's file of true labels, where there is one."""
    return own_file(PLAN.runs[wildcards.run].dataset.truth)


def truth_listing(wildcards):
    """Params: names, sizes and times of the annotations, so that edited ones are noticed."""
    return truth_fingerprint(PLAN.runs[wildcards.run])


def photos(wildcards):
    """Input: the manifest, known once its checkpoint is done. Taken as ancient(): what counts are its digests."""
    owner = PLAN.owner(wildcards.run, "manifest")
    return checkpoints.manifest.get(dataset=wildcards.dataset, run=owner).output.images


def shards(run):
    """Read shards.csv: a row per shard with digests of its rows; empty as long as there is none."""
    table = Path(on_disk(PLAN.folder(run, "manifest") / "shards.csv"))
    if not table.exists():
        return pd.DataFrame(columns=["shard", "digest", "listed"])
    return shards_as_of(table, table.stat().st_mtime_ns)


@cache
def shards_as_of(table, changed):
    """Read shards.csv once, however many jobs ask, as long as it stays as it is."""
    return pd.read_csv(table, dtype=str)


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
    return range(-(-cut.num_passes // cut.block_size))


def passes_of_block(wildcards):
    """Params: how many passes a block holds; the last may hold fewer."""
    cut = PLAN.runs[wildcards.run].cut
    return min(cut.block_size, cut.num_passes - int(wildcards.block) * cut.block_size)


def chunks(wildcards):
    """Input: all chunk files of views.zarr and their records."""
    photos(wildcards)
    views = PLAN.folder(wildcards.run, "encode") / "views.zarr"
    for shard in shards(wildcards.run)["shard"]:
        yield str(view_chunk_file(views, GLOBAL, shard))
        yield str(view_chunk_record(views, shard))
        for block in blocks(wildcards.run):
            yield str(view_chunk_file(views, CROPS, shard, block))
            yield str(view_chunk_file(views, BOXES, shard, block))
            yield str(view_chunk_record(views, shard, block))


def patch_options(wildcards):
    """Params: the photos to paste, as command-line options; none where nothing is sewn."""
    return [word for path in pasted(wildcards) for word in ("--patches", on_disk(path))]


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


def labels_for(stage):
    """Input: the labels that `targets`, `override` or `train` reads."""

    def for_run(wildcards):
        run = wildcards.run
        maker = PLAN.labels_read(run, stage, PLAN.trains_on_corrections(run))
        return str(PLAN.folder(run, maker) / OUTPUTS[maker][0] / "zarr.json")

    return for_run


def targets(wildcards):
    """Input: the labels of a chosen number per photo."""
    folder = PLAN.folder(wildcards.run, "targets")
    return str(folder / "targets.zarr" / "zarr.json")


def overridden(wildcards):
    """Input: the labels with a human's corrections."""
    folder = PLAN.folder(wildcards.run, "override")
    return str(folder / "overridden.zarr" / "zarr.json")


def corrections_file(wildcards):
    """Input: the file of a human's corrections."""
    return own_file(PLAN.runs[wildcards.run].labels.overrides)


def trained_corrections(wildcards):
    """Params: digest of the corrections of training photos, so that those of held-out photos train nothing."""
    return PLAN.training_corrections(wildcards.run)


def salient_labels(wildcards):
    """Input: the labels that say how salient a photo is."""
    if PLAN.runs[wildcards.run].select.labels == "zero_shot":
        return logits(wildcards)
    return pseudo(wildcards)


def fused(wildcards):
    """Input: fused.zarr."""
    return str(PLAN.folder(wildcards.run, "fuse") / "fused.zarr" / "zarr.json")


def pseudo(wildcards):
    """Input: pseudo.zarr."""
    return str(PLAN.folder(wildcards.run, "correct") / "pseudo.zarr" / "zarr.json")


def logits(wildcards):
    """Input: logits.zarr."""
    return str(
        PLAN.folder(wildcards.run, PLAN.scored_by(wildcards.run))
        / "logits.zarr"
        / "zarr.json"
    )
