"""Stage reference_labels: true labels as a reference student is trained on. No label of the method comes from here."""

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.config.evaluation import ReferencesConfig
from cutsew.errors import UserError, some
from cutsew.method.reference_labels import Logits, Truth, single_positive, smoothed, supervised
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.manifest import batched_slices, ids_of, read_manifest
from cutsew.storage.predictions import read_truth
from cutsew.storage.zarr_layout import label_spec
from cutsew.storage.zarr_writer import new_group

log = logging.getLogger(__name__)


def reference_labels(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    truth: Annotated[Path, typer.Argument(help="truth.parquet, the true labels")],
    labels: Annotated[Path, typer.Argument(help="labels.zarr, written")],
    *,
    kind: Annotated[str, typer.Option(help="supervised, smoothed or single_positive.")],
    settings: SettingsOption,
) -> None:
    """Turn true labels into those of a reference student, which is no part of the method."""
    record = Record("reference_labels", STAGES["reference_labels"].version, {**settings, "kind": kind}, [images, truth])
    image_rows, classes = read_manifest(images, columns=("id", "digest", "split")), list(settings["classes"])
    ids = ids_of(image_rows)
    known = read_truth(truth, ids, classes)
    _refuse_unknown(image_rows.iloc[np.flatnonzero((known < 0).all(axis=1))], kind)
    _refuse_unknown_classes(known[image_rows["split"] == "train"], classes, kind)
    spec = label_spec(len(image_rows), len(classes))
    with new_group(labels, {"z": spec}, {"image": ids, "class": classes}) as group:
        for rows in tqdm(list(batched_slices(len(image_rows), spec.chunks[0])), desc="reference_labels", unit="shard"):
            group["z"][rows] = _labels(known[rows], image_rows["digest"].iloc[rows].tolist(), kind, settings)
    record.write_beside(labels)


def _refuse_unknown(images: pd.DataFrame, kind: str) -> None:
    """Refuse training images without true labels."""
    missing = images.loc[images["split"] == "train", "id"]
    if len(missing):
        raise UserError(
            f"references.kinds: {kind} needs true labels of all training images, and {len(missing)} have none, "
            f"such as {missing.iloc[0]!r}; add them to the truth or leave {kind} out"
        )


def _refuse_unknown_classes(known: Truth, classes: list[str], kind: str) -> None:
    """Refuse classes that no training image has truth of; count the other labels that are not known."""
    missing = [name for c, name in enumerate(classes) if not (known[:, c] >= 0).any()]
    if missing and len(known):
        raise UserError(
            f"references.kinds: {kind} needs true labels of all classes, and none is known for {some(missing)}; add "
            f"them to the truth or leave {kind} out"
        )
    unknown = int((known < 0).sum())
    if unknown:
        log.warning("%d ground-truth labels of training images are unknown; %s treats them as negative", unknown, kind)


def _labels(truth: Truth, digests: list[str], kind: str, settings: dict[str, Any]) -> Logits:
    match kind:
        case "supervised":
            return supervised(truth)
        case "smoothed":
            return smoothed(truth, ReferencesConfig.model_validate(settings["references"]).smoothing)
        case "single_positive":
            return single_positive(truth, digests, settings["train"]["seed"])
    raise UserError(f"--kind: {kind} is not one; use supervised, smoothed or single_positive")
