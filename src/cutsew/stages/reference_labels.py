"""Stage reference_labels: true labels as a reference student is trained on. No label of the method comes from here."""

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.artefacts.logits import label_spec
from cutsew.artefacts.manifest import read_manifest, slabs
from cutsew.artefacts.outcome import read_truth
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import new_group
from cutsew.config.model import References
from cutsew.errors import UserError
from cutsew.numerics.reference import single_positive, smoothed, supervised
from cutsew.plan import STAGES
from cutsew.stages.options import SettingsOption

ROWS = 65536
"""Photos in one chunk of labels.zarr."""


def reference_labels(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    truth: Annotated[Path, typer.Argument(help="labels.parquet, the true labels")],
    labels: Annotated[Path, typer.Argument(help="labels.zarr, written")],
    *,
    kind: Annotated[str, typer.Option(help="supervised, smoothed or single_positive.")],
    settings: SettingsOption,
) -> None:
    """Turn true labels into those of a reference student, which is no part of the method."""
    record = Record("reference_labels", STAGES["reference_labels"].version, {**settings, "kind": kind}, [images, truth])
    photos, classes = read_manifest(images), list(settings["classes"])
    spec = label_spec(len(photos), len(classes), max(1, min(ROWS, len(photos))))
    with new_group(labels, {"z": spec}, {"image": list(photos["id"]), "class": classes}) as group:
        for rows in tqdm(list(slabs(len(photos), ROWS)), desc="reference_labels", unit="shard"):
            group["z"][rows] = _labels(photos.iloc[rows], truth, classes, kind, settings)
    record.write_beside(labels)


def _labels(
    photos: pd.DataFrame, path: Path, classes: list[str], kind: str, settings: SettingsOption
) -> npt.NDArray[np.float32]:
    truth = read_truth(path, list(photos["id"]), classes)
    unknown = (truth < 0).all(axis=1) & (photos["split"] == "train").to_numpy()
    if unknown.any():
        first = photos["id"].iloc[int(np.argmax(unknown))]
        raise UserError(
            f"references.kinds: {kind} needs true labels of all training photos, and {unknown.sum()} have none, "
            f"such as {first!r}; add them to the truth or leave {kind} out"
        )
    match kind:
        case "supervised":
            return supervised(truth)
        case "smoothed":
            return smoothed(truth, References.model_validate(settings["references"]).smoothing)
        case "single_positive":
            return single_positive(truth, photos["digest"].tolist(), settings["train"]["seed"])
    raise UserError(f"--kind: {kind} is not one; use supervised, smoothed or single_positive")
