"""Stage override: a human's corrections of training images applied to the labels that training starts from."""

import logging
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from tqdm import tqdm

from cutsew.config.method import parse_score
from cutsew.errors import UserError
from cutsew.method.correct import override as override_labels
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.image_ids import image_ids
from cutsew.storage.label_corrections import read_corrections
from cutsew.storage.manifest import batched_slices, read_manifest
from cutsew.storage.zarr_layout import folder_of, label_spec
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read
from cutsew.storage.zarr_writer import CopiedCoordinate, new_group

log = logging.getLogger(__name__)


def override(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    labels: Annotated[Path, typer.Argument(help="pseudo.zarr, fused.zarr or logits.zarr, as train.labels says")],
    corrections: Annotated[Path, typer.Argument(help="corrections.parquet; those of held-out images are passed over")],
    overridden: Annotated[Path, typer.Argument(help="overridden.zarr, written")],
    settings: SettingsOption,
) -> None:
    """Apply manual corrections to the initial training labels."""
    record = Record("override", STAGES["override"].version, settings, [images, labels, corrections])
    epsilon = parse_score(settings["score"]).epsilon
    group = open_group(labels)
    z = array_of(group, "z" if "z" in group else "zero_shot")
    ids, classes = image_ids(group), labels_of(group, "class")
    every = read_corrections(corrections, classes)
    corrections_of_train, held_out = every.of_split("train"), len(every.of_split("test"))
    _refuse_other_images(images, ids, labels)
    size = z.chunks[0]
    shape = len(ids), len(classes), size
    specs = {"z": label_spec(*shape), "overridden": label_spec(*shape, "int8")}
    coordinates = {name: CopiedCoordinate(folder_of(labels)) for name in ("image", "class")}
    with new_group(overridden, specs, coordinates) as written:
        for rows in tqdm(list(batched_slices(len(ids), size)), desc="override", unit="shard"):
            signs = corrections_of_train.said(ids[rows].tolist())
            written["z"][rows], _ = override_labels(read(z, rows), signs, epsilon)
            written["overridden"][rows] = signs
    record.facts = {
        "corrections": len(corrections_of_train),
        "images": len(corrections_of_train.images),
        "digest": corrections_of_train.digest,
    }
    record.write_beside(overridden)
    log.info(
        "override: %d labels of %d training images were set by hand",
        len(corrections_of_train),
        len(corrections_of_train.images),
    )
    if held_out:
        log.info("override: corrections of held-out images, which do not affect training: %d", held_out)


def _refuse_other_images(images: Path, ids: pd.Index, labels: Path) -> None:
    """Refuse labels of other images than the manifest's."""
    if not ids.equals(pd.Index(read_manifest(images, columns=("id",))["id"])):
        raise UserError(f"{folder_of(labels)}: its images are not those of images.parquet; run the workflow again")
