"""Stage targets: labels whose mean number per image is a chosen one, for training to start from."""

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.config.method import TargetsConfig
from cutsew.errors import UserError
from cutsew.method.label_count import automatic_count, fit_logit_shift
from cutsew.method.label_count import targets as shifted
from cutsew.method.score import sigmoid
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.image_ids import image_ids
from cutsew.storage.manifest import batched_slices, read_manifest
from cutsew.storage.zarr_layout import Answers, folder_of, label_spec
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read, read_rows
from cutsew.storage.zarr_writer import CopiedCoordinate, new_group

log = logging.getLogger(__name__)

SAMPLE, SAMPLE_BYTES = 65536, 2**30
"""Training images, spread evenly over all, from which count and shift are found; and what their logits may take."""


def targets(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    labels: Annotated[Path, typer.Argument(help="pseudo.zarr, fused.zarr or logits.zarr, as train.labels says")],
    made: Annotated[Path, typer.Argument(metavar="TARGETS", help="targets.zarr, written")],
    settings: SettingsOption,
) -> None:
    """Shift the logits to a mean number of labels per image."""
    record = Record("targets", STAGES["targets"].version, settings, [images, labels])
    rule = TargetsConfig.model_validate(settings["targets"])
    group = open_group(labels)
    z = array_of(group, "z" if "z" in group else "zero_shot")
    ids, classes = image_ids(group), labels_of(group, "class")
    image_rows = read_manifest(images, columns=("id", "split"))
    if not ids.equals(pd.Index(image_rows["id"])):
        raise UserError(f"{folder_of(labels)}: its images are not those of images.parquet; run the workflow again")
    train = image_rows.loc[image_rows["split"] == "train", "row"].to_numpy()
    most = max(2, min(len(train), SAMPLE, SAMPLE_BYTES // (4 * len(classes))))
    chosen = np.unique(np.linspace(0, len(train) - 1, most).round().astype(int))
    sample = read_rows(z, train[chosen])
    sum_to_one = Answers.of(group).sum_to_one
    if rule.labels_per_image != "auto":
        count = float(rule.labels_per_image or 0)
    elif len(sample) > 1:
        count = automatic_count(sample, sum_to_one=sum_to_one)
    else:  # of one image nothing can be estimated
        count = float(sigmoid(sample.astype(np.float64)).sum(axis=1).mean())
    shift = fit_logit_shift(sample, count, rule.sharpen)
    size = z.chunks[0]
    specs = {"z": label_spec(len(ids), len(classes), size)}
    coordinates = {name: CopiedCoordinate(folder_of(labels)) for name in ("image", "class")}
    with new_group(made, specs, coordinates, {"shift": shift}) as written:
        for rows in tqdm(list(batched_slices(len(ids), size)), desc="targets", unit="shard"):
            written["z"][rows] = shifted(read(z, rows), shift, rule.sharpen)
    record.facts = {"count": count, "shift": shift, "images": len(chosen)}
    record.write_beside(made)
    log.info("targets: %.3f labels an image (%s)", count, "estimated" if rule.labels_per_image == "auto" else "as set")
