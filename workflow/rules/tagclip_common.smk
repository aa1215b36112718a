# Helpers of TagCLIP's rules.
from cutsew.artefacts import tagclip


def tagclip_chunks(wildcards):
    """Input: all chunk files of tagclip.zarr and their records."""
    photos(wildcards)
    group = PLAN.folder(wildcards.run, "tagclip") / "tagclip.zarr"
    for shard in shards(wildcards.run)["shard"]:
        for array in (tagclip.LOCAL, tagclip.AGAIN):
            yield str(tagclip.chunk_file(group, array, shard))
        yield str(tagclip.chunk_record(group, shard))


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
