"""Stage seal: the metadata of views.zarr, written once all its chunk files are there."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cutsew.config.cutting import PAPER, Cut, parse_cut, teacher_cost
from cutsew.method.crops import EDGES
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, require_consistent_records
from cutsew.stages.options import SettingsOption
from cutsew.storage.chunk_cache import prune
from cutsew.storage.manifest import ids_of, read_manifest
from cutsew.storage.tables import read_record
from cutsew.storage.zarr_layout import folder_of, view_chunk_record, view_specs
from cutsew.storage.zarr_writer import Coordinates
from cutsew.storage.zarr_writer import finalize as seal_group

SAME = ("width", "image_size", "weights", "preprocessing", "logit_scale")
"""What all encoding jobs of one group must agree on."""


def seal(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    views: Annotated[Path, typer.Argument(help="views.zarr")],
    settings: SettingsOption,
) -> None:
    """Write the metadata of views.zarr when all chunks are complete."""
    record = Record("seal", STAGES["seal"].version, settings, [images])
    group = folder_of(views)
    cut, shard_size = parse_cut(settings["cut"]), int(settings["dataset"]["shard_size"])
    rows = read_manifest(images, columns=("id", "shard"))
    shards = sorted(int(shard) for shard in rows["shard"].unique())
    records = (view_chunk_record(group, shard, block) for shard in shards for block in range(cut.blocks))
    refusal = f"encoded by a different teacher than its neighbors; delete {group} and run again"
    known, facts = require_consistent_records(records, SAME, refusal)
    layout = view_specs(len(rows), facts["width"], shard_size, cut.num_passes, cut.block_size)
    coordinates: Coordinates = {
        "image": ids_of(rows),
        "pass": np.arange(cut.num_passes),
        "edge": np.array(EDGES, dtype=object),
    }
    digest = seal_group(group, layout, coordinates, facts, known)
    record.facts = facts | _cost(cut, view_chunk_record(group, shards[0], 0), facts["image_size"])
    record.write(group.with_suffix(".json"), {group.name: digest, **{f"{group.name}/{k}": d for k, d in known.items()}})
    prune(group)


def _cost(cut: Cut, whole: Path, image_size: int) -> dict[str, Any]:
    """Return the teacher's work per image in views and GFLOP, and that of the paper's cutting."""
    views, paper = (teacher_cost(one.view_sides(image_size), image_size) for one in (cut, PAPER))
    gflop = read_record(whole).get("facts", {}).get("gflop")  # records of older versions have none
    return {"views_per_image": views, "paper_views_per_image": paper, "gflop_per_view": gflop}
