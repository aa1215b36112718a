"""Stage seal: the metadata of views.zarr, written once all its chunk files are there."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cutsew.artefacts.layout import folder_of
from cutsew.artefacts.manifest import read_manifest
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import seal as seal_group
from cutsew.artefacts.tables import read_record
from cutsew.artefacts.views import chunk_record, specs
from cutsew.errors import UserError
from cutsew.numerics.views import EDGES
from cutsew.pipeline import STAGES
from cutsew.stages.options import SettingsOption

SAME = ("width", "image_size", "weights", "logit_scale")
"""What all encoding jobs of one group must agree on."""


def seal(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    views: Annotated[Path, typer.Argument(help="views.zarr")],
    settings: SettingsOption,
) -> None:
    """Write the metadata of views.zarr once all its chunks are there."""
    record = Record("seal", STAGES["seal"].version, settings, [images])
    group = folder_of(views)
    cut, shard_size = settings["cut"], int(settings["dataset"]["shard_size"])
    rows = read_manifest(images)
    blocks = -(-int(cut["passes"]) // int(cut["passes_per_job"]))
    facts: dict[str, Any] = {}
    known: dict[str, str] = {}
    for shard in sorted(rows["shard"].unique()):
        for block in (None, *range(blocks)):
            path = chunk_record(group, int(shard), block)
            known |= read_record(path, "outputs")
            mine = {name: read_record(path, "facts", name) for name in SAME}
            facts = facts or mine
            if mine != facts:
                raise UserError(f"{path}: encoded by another teacher than its neighbours; delete {group} and run again")
    layout = specs(len(rows), facts["width"], shard_size, cut["passes"], cut["passes_per_job"])
    coordinates = {
        "image": rows["id"].astype(str).to_numpy(dtype=object),
        "pass": np.arange(cut["passes"]),
        "edge": np.array(EDGES, dtype=object),
    }
    digest = seal_group(group, layout, coordinates, facts, known)
    record.facts = facts
    record.write(group.with_suffix(".json"), {group.name: digest, **{f"{group.name}/{k}": d for k, d in known.items()}})
