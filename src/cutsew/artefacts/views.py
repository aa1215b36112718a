"""Layout of views.zarr: which file holds which passes of which photos."""

from pathlib import Path

from cutsew.artefacts.layout import Spec, inner_chunk
from cutsew.numerics.views import EDGES

GLOBAL, CROPS, BOXES = "global", "crops", "boxes"


def specs(images: int, width: int, shard_size: int, passes: int, passes_per_job: int) -> dict[str, Spec]:
    """Describe the arrays of views.zarr.

    Args:
        images: N.
        width: D of an embedding.
        shard_size: images in one chunk file.
        passes: M.
        passes_per_job: passes in one chunk file.

    """
    inner = inner_chunk(shard_size)
    return {
        GLOBAL: Spec((images, width), "float16", ("image", "embedding"), (shard_size, width), (inner, width)),
        CROPS: Spec(
            (passes, images, width),
            "float16",
            ("pass", "image", "embedding"),
            (passes_per_job, shard_size, width),
            (1, inner, width),
        ),
        BOXES: Spec(
            (passes, images, len(EDGES)), "float32", ("pass", "image", "edge"), (passes_per_job, shard_size, len(EDGES))
        ),
    }


def chunk_file(group: Path, array: str, shard: int, block: int | None = None) -> Path:
    """Name the chunk file of one shard (and, but for GLOBAL, one block of passes)."""
    index = (shard,) if block is None else (block, shard)
    return group.joinpath(array, "c", *map(str, index), "0")


def chunk_record(group: Path, shard: int, block: int | None = None) -> Path:
    """Name the record of one encoding job."""
    name = f"{GLOBAL}-{shard}" if block is None else f"{CROPS}-{block}-{shard}"
    return group.parent / "views.records" / f"{name}.json"
