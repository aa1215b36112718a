"""Stage encode: embeddings of one block of crop passes of one shard; of the first one, of the whole images too."""

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy.typing as npt
import typer

from cutsew.config.cutting import parse_cut
from cutsew.config.networks import parse_teacher
from cutsew.models import teachers
from cutsew.models.view_embedding import embed_block
from cutsew.pipeline.chunk_cache_key import chunk_cache_key
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.runtime.batching import halving
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import BatchOption, DeviceOption, SettingsOption, WorkersOption
from cutsew.storage.chunk_cache import ChunkCache
from cutsew.storage.manifest import read_manifest, shard_digests
from cutsew.storage.zarr_layout import BOXES, CROPS, GLOBAL, view_chunk_file, view_chunk_record, view_specs
from cutsew.storage.zarr_writer import write_chunk

log = logging.getLogger(__name__)


def encode(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    views: Annotated[Path, typer.Argument(help="views.zarr, the group whose chunk files are written")],
    settings: SettingsOption,
    shard: Annotated[int, typer.Option(min=0, help="Which shard of the images.")],
    block: Annotated[
        int, typer.Option(min=0, help="Which block of passes; the first one embeds the whole images too.")
    ] = 0,
    passes: Annotated[int, typer.Option(min=0, help="Number of passes in the block.")] = 0,
    device: DeviceOption = "auto",
    batch_size: BatchOption = 32,
    workers: WorkersOption = 0,
) -> None:
    """Embed a block of crop passes of one shard; with the first block, the whole images too."""
    record = Record("encode", STAGES["encode"].version, settings, [images])
    cutting = parse_cut(settings["cut"])
    shard_size = int(settings["dataset"]["shard_size"])
    rows = read_manifest(images, shard=shard)
    torch_device = pick_device(device)
    model = teachers.build(parse_teacher(settings["teacher"]), torch_device)
    first = block * cutting.block_size
    specs = view_specs(len(rows), model.width, shard_size, passes, cutting.block_size)
    specs = {name: specs[name] for name in ([GLOBAL] if block == 0 else []) + ([CROPS, BOXES] if passes else [])}
    key = chunk_cache_key(
        "encode", settings, model, torch_device, block=block, passes=passes, image_size=model.image_size
    )
    cache = ChunkCache(views, key, images)
    digests = rows["digest"].astype(str).tolist()

    def compute(new: list[int]) -> dict[str, npt.NDArray[Any]]:
        whole, crops, boxes = embed_block(
            rows.iloc[new], model, cutting, range(first, first + passes), batch_size, workers, whole=block == 0
        )
        computed: dict[str, Any] = {GLOBAL: whole, CROPS: crops, BOXES: boxes}
        return {name: computed[name] for name in specs}

    values, embedded = cache.complete(digests, specs, compute)
    if embedded < len(rows):
        log.info("%d of %d images are new and were embedded", embedded, len(rows))
    files = {name: view_chunk_file(views, name, shard, None if name == GLOBAL else block) for name in specs}
    written = {name: write_chunk(path, values[name], specs[name]) for name, path in files.items()}
    cache.add(shard, digests, specs, {name: (files[name], digest) for name, digest in written.items()})
    record.facts = {"width": model.width, "image_size": model.image_size, "weights": model.weights_digest}
    record.facts |= {"logit_scale": model.logit_scale, "first_pass": first, "images": len(rows)}
    record.facts |= device_facts(torch_device) | {"batch_size": halving.most or batch_size}
    if cutting.layout == "tiles":
        parts = cutting.by_side(range(first, first + passes), model.image_size)
        record.facts["sides"] = [side for run, side in parts for _ in run]
    record.facts["preprocessing"] = model.preprocessing.describe()
    record.facts["preprocessing_from"] = model.preprocessing.source
    if block == 0:
        record.facts["gflop"] = model.gflop()
    record.work = {"embedded": embedded}
    record.facts["rows"] = shard_digests(rows)[shard]
    outputs = {str(files[name].relative_to(views)): digest for name, digest in written.items()}
    record.write(view_chunk_record(views, shard, block), outputs)
