"""Stage predict: the held-out photos, scored by the student."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from cutsew.artefacts.logits import label_spec
from cutsew.artefacts.manifest import read_manifest
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import new_group
from cutsew.device import pick_device
from cutsew.plan import STAGES
from cutsew.stages.options import BatchOption, DeviceOption, WorkersOption
from cutsew.student import MODEL, Build, build_backbone, load
from cutsew.training.photos import plain_batches


def predict(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    adapter: Annotated[Path, typer.Argument(help="adapter.safetensors, with model.yaml beside it")],
    scores: Annotated[Path, typer.Argument(help="scores.zarr, written")],
    device: DeviceOption = "auto",
    batch_size: BatchOption = 32,
    workers: WorkersOption = 0,
) -> None:
    """Score the held-out photos with the student."""
    run(images, adapter, scores, device, batch_size, workers)


def run(
    images: Path,
    adapter: Path,
    scores: Path,
    device: str,
    batch_size: int,
    workers: int,
    build: Build = build_backbone,
) -> None:
    """Predict with a backbone that `build` makes; otherwise as `predict`.

    Without test photos the array has the shape (0, C).
    """
    record = Record("predict", STAGES["predict"].version, {}, [images, adapter, adapter.with_name(MODEL)])
    photos = read_manifest(images, split="test")
    where = pick_device(device)
    student = load(adapter, where, build)
    size = max(1, int(photos.groupby("shard").size().max())) if len(photos) else 1
    spec = label_spec(len(photos), len(student.classes), size)
    ids = np.asarray(photos["id"].tolist(), dtype=object if len(photos) else str)
    with (
        new_group(scores, {"z": spec}, {"image": ids, "class": student.classes}) as group,
        tqdm(total=len(photos), desc="predict", unit="photo") as bar,
    ):
        for start in range(0, len(photos), size):  # one chunk at a time
            paths = photos["path"].iloc[start : start + size].tolist()
            found = []
            for batch in plain_batches(paths, student.image_size, batch_size, workers):
                found.append(student(batch.to(where)).cpu().numpy())
                bar.update(len(batch))
            group["z"][start : start + len(paths)] = np.concatenate(found)
    record.facts = {"device": where, "weights": student.backbone.weights_digest, "photos": len(photos)}
    record.write_beside(scores)
