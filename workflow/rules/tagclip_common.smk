# Helpers of TagCLIP's rules.
from cutsew.storage import zarr_layout


def tagclip_chunks(wildcards):
    """Input: all chunk files of tagclip.zarr and their records."""
    photos(wildcards)
    group = PLAN.folder(wildcards.run, "tagclip") / "tagclip.zarr"
    for shard in shards(wildcards.run)["shard"]:
        for array in (zarr_layout.TAGCLIP_LOCAL, zarr_layout.TAGCLIP_AGAIN):
            yield str(zarr_layout.tagclip_chunk_file(group, array, shard))
        yield str(zarr_layout.tagclip_chunk_record(group, shard))


def tagclip_scores(wildcards):
    """Input: TagCLIP's scores, where they take the place of the crops'."""
    if not makes(wildcards.run, "tagclip"):
        return []
    folder = PLAN.folder(wildcards.run, "seal_tagclip")
    return [str(folder / "tagclip.zarr" / "zarr.json")]


def tagclip_options(wildcards):
    """Params: TagCLIP's scores, as command-line options; none where crops are fused."""
    return [
        word
        for path in tagclip_scores(wildcards)
        for word in ("--tagclip", on_disk(path))
    ]
