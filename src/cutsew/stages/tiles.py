"""Stage tiles: the held-out photos, looked at by the student whole and in tiles."""

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.data.loader import tiled_batches
from cutsew.method.ensemble import reference
from cutsew.method.student_views import LOOKS, on_whole_scale, tiled
from cutsew.models.student import MODEL, Build, Logits, build_backbone, load, scored
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import BatchOption, DeviceOption, WorkersOption
from cutsew.storage import result_tables as table
from cutsew.storage.manifest import read_manifest
from cutsew.storage.zarr_layout import folder_of, label_spec
from cutsew.storage.zarr_writer import new_group

log = logging.getLogger(__name__)

SAMPLE = 512
"""Number of training photos for the score statistics: each costs as many views as a held-out one, and no order of
photos depends on it."""


def tiles(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    adapter: Annotated[Path, typer.Argument(help="adapter.safetensors, with model.yaml next to it")],
    out: Annotated[Path, typer.Argument(help="tiles.zarr, written; tiles.csv next to it")],
    device: DeviceOption = "auto",
    batch_size: BatchOption = 32,
    workers: WorkersOption = 0,
) -> None:
    """Score the held-out images with test-time tiling."""
    run(images, adapter, out, device, batch_size, workers)


def run(
    images: Path,
    adapter: Path,
    out: Path,
    device: str,
    batch_size: int,
    workers: int,
    build: Build = build_backbone,
) -> None:
    """Look with a backbone that `build` makes; otherwise as `tiles`."""
    record = Record("tiles", STAGES["tiles"].version, {}, [images, adapter, adapter.with_name(MODEL)])
    manifest = read_manifest(images)
    photos, sample = manifest[manifest["split"] == "test"], table.sample(manifest[manifest["split"] == "train"], SAMPLE)
    where = pick_device(device)
    student = load(adapter, where, build)
    group = folder_of(out)
    beside = group.with_name(table.TILES)
    size = max(1, int(photos.groupby("shard").size().max())) if len(photos) else 1
    spec = label_spec(len(photos), len(student.classes), size)
    ids = np.asarray(photos["id"].tolist(), dtype=object if len(photos) else str)
    with tqdm(total=len(sample) + len(photos), desc="tiles", unit="photo") as bar:

        def look(some: pd.DataFrame) -> Logits:
            paths = some["path"].tolist()
            return scored(student, tiled_batches(paths, student.square, batch_size, workers), paths, bar)

        z = look(sample)
        usual = {"student": reference(z[:, 0]), "tiles": reference(tiled(z))}
        table.write_score_statistics(beside, student.classes, usual)
        with new_group(out, {"z": spec}, {"image": ids, "class": student.classes}) as written:
            for start in range(0, len(photos), size):  # one chunk at a time
                z = look(photos.iloc[start : start + size])
                written["z"][start : start + len(z)] = on_whole_scale(z, usual["student"], usual["tiles"])
    record.facts = {**device_facts(where), "weights": student.backbone.weights_digest, "photos": len(photos)}
    record.facts |= {"reference_photos": len(sample), "views_of_student_per_photo": LOOKS}
    record.write(group.with_suffix(".json"), {path.name: input_digest(path) for path in (group, beside)})
    log.info("tiles: %d student views per image", LOOKS)
