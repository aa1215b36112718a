"""Layout of tagclip.zarr: the two answers of TagCLIP, one chunk file of each per shard."""

from pathlib import Path

from cutsew.artefacts.layout import Spec
from cutsew.artefacts.logits import label_spec

LOCAL, AGAIN = "local", "again"
"""Score of a class's best patch; probability of the class where its region was asked again, else NaN."""


def specs(images: int, classes: int, shard_size: int) -> dict[str, Spec]:
    """Describe both arrays, (image, class)."""
    return {name: label_spec(images, classes, shard_size) for name in (LOCAL, AGAIN)}


def chunk_file(group: Path, array: str, shard: int) -> Path:
    """Name the chunk file of one shard."""
    return group / array / "c" / str(shard) / "0"


def chunk_record(group: Path, shard: int) -> Path:
    """Name the record of one job."""
    return group.parent / "tagclip.records" / f"{shard}.json"
