"""Stage seal_tagclip: the metadata of tagclip.zarr, written once all its chunk files are there."""

from pathlib import Path
from typing import Annotated

import typer

from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, require_consistent_records
from cutsew.stages.options import SettingsOption
from cutsew.storage.chunk_cache import prune
from cutsew.storage.manifest import ids_of, read_manifest
from cutsew.storage.zarr_layout import folder_of, tagclip_chunk_record, tagclip_specs
from cutsew.storage.zarr_reader import labels_of, open_group
from cutsew.storage.zarr_writer import finalize

SAME = ("weights", "preprocessing", "text", "patch", "side", "background")
"""What all jobs of one group must agree on."""


def seal_tagclip(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    text: Annotated[Path, typer.Argument(help="text.zarr")],
    group: Annotated[Path, typer.Argument(help="tagclip.zarr")],
    settings: SettingsOption,
) -> None:
    """Write the metadata of tagclip.zarr when all chunks are complete."""
    record = Record("seal_tagclip", STAGES["seal_tagclip"].version, settings, [images, text])
    folder, classes = folder_of(group), labels_of(open_group(text), "class")
    rows = read_manifest(images, columns=("id", "shard"))
    records = (tagclip_chunk_record(folder, int(shard)) for shard in sorted(rows["shard"].unique()))
    refusal = f"scored by another teacher or texts than its neighbors; delete {folder}"
    known, facts = require_consistent_records(records, SAME, refusal)
    layout = tagclip_specs(len(rows), len(classes), int(settings["dataset"]["shard_size"]))
    digest = finalize(folder, layout, {"image": ids_of(rows), "class": classes}, facts, known)
    record.facts = facts
    outputs = {folder.name: digest, **{f"{folder.name}/{name}": value for name, value in known.items()}}
    record.write(folder.with_suffix(".json"), outputs)
    prune(folder)
