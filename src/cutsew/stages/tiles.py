"""Stage tiles: the held-out images, looked at by the student whole and in tiles."""

import logging
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from tqdm import tqdm

from cutsew.data.loader import tiled_batches
from cutsew.method.ensemble import score_stats
from cutsew.method.student_views import NUM_VIEWS, on_whole_scale, tiled
from cutsew.models.student import MODEL, BackboneFactory, Logits, build_backbone, load, predict_batches
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import BatchOption, DeviceOption, WorkersOption
from cutsew.storage import result_tables as table
from cutsew.storage.manifest import ids_of, read_manifest
from cutsew.storage.zarr_layout import folder_of, label_spec
from cutsew.storage.zarr_writer import new_group

log = logging.getLogger(__name__)

SAMPLE = 512
"""Number of training images for the score statistics: each costs as many views as a held-out one, and no order of
images depends on it."""


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
    build: BackboneFactory = build_backbone,
) -> None:
    """Look with a backbone that `build` makes; otherwise as `tiles`."""
    record = Record("tiles", STAGES["tiles"].version, {}, [images, adapter, adapter.with_name(MODEL)])
    manifest = read_manifest(images, columns=("id", "path", "split"))
    image_rows, sample = (
        manifest[manifest["split"] == "test"],
        table.sample(manifest[manifest["split"] == "train"], SAMPLE),
    )
    torch_device = pick_device(device)
    student = load(adapter, torch_device, build)
    group = folder_of(out)
    stats_path = group.with_name(table.TILES)
    spec = label_spec(len(image_rows), len(student.classes))
    size = spec.chunks[0]
    with tqdm(total=len(sample) + len(image_rows), desc="tiles", unit="image") as bar:

        def look(some: pd.DataFrame) -> Logits:
            paths = some["path"].tolist()
            return predict_batches(student, tiled_batches(paths, student.square, batch_size, workers), paths, bar)

        z = look(sample)
        stats = {"student": score_stats(z[:, 0]), "tiles": score_stats(tiled(z))}
        table.write_score_statistics(stats_path, student.classes, stats)
        with new_group(out, {"z": spec}, {"image": ids_of(image_rows), "class": student.classes}) as written:
            for start in range(0, len(image_rows), size):  # one chunk at a time
                z = look(image_rows.iloc[start : start + size])
                written["z"][start : start + len(z)] = on_whole_scale(z, stats["student"], stats["tiles"])
    record.facts = {**device_facts(torch_device), "weights": student.backbone.weights_digest, "images": len(image_rows)}
    record.facts |= {"reference_images": len(sample), "views_of_student_per_image": NUM_VIEWS}
    record.write(group.with_suffix(".json"), {path.name: input_digest(path) for path in (group, stats_path)})
    log.info("tiles: %d student views per image", NUM_VIEWS)
