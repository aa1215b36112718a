"""Stage import_scores: logits of every view from scores made elsewhere."""

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.config.method import parse_score
from cutsew.config.networks import ScoresFileConfig, ScoresTeacherConfig
from cutsew.data.scores import Scores
from cutsew.errors import UserError
from cutsew.method.score import logit
from cutsew.models.activation import activation_of
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.manifest import batched_slices, ids_of, read_manifest
from cutsew.storage.zarr_layout import Activation, Answers, logit_specs
from cutsew.storage.zarr_writer import new_group

log = logging.getLogger(__name__)

SHOWN = 3
"""Images named where some have no scores."""


def import_scores(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    logits: Annotated[Path, typer.Argument(help="logits.zarr, written")],
    settings: SettingsOption,
) -> None:
    """Read logits from externally computed scores.

    Held-out images may lack them: their rows are not a number and the stages before the student are not measured there.
    """
    record = Record("import_scores", STAGES["import_scores"].version, settings, [images])
    teacher = ScoresFileConfig.model_validate(settings["teacher"]["scores"])
    scoring = parse_score(settings["score"])
    requested = ScoresTeacherConfig(scores=teacher)
    activation = activation_of(scoring, requested, len(settings["classes"]))
    image_rows = read_manifest(images, columns=("id", "split"))
    ids = ids_of(image_rows)
    scores = Scores(teacher, settings["classes"])
    rows = scores.rows_of(ids)
    held_out = (image_rows["split"] == "test").to_numpy()
    _refuse_missing(ids[(rows < 0) & ~held_out], len(image_rows), teacher)
    if (rows < 0).any():
        log.warning("%d held-out images have no scores: only the student is evaluated on them", (rows < 0).sum())

    coordinates = {"image": ids, "class": settings["classes"], "pass": np.arange(scores.passes)}
    specs = logit_specs(len(image_rows), len(settings["classes"]), scores.passes)
    size = specs["zero_shot"].chunks[0]
    with new_group(logits, specs, coordinates, Answers(activation or "softmax").attributes()) as written:
        for k in tqdm(range(-1, scores.passes), desc="import_scores", unit="pass"):
            for slab in batched_slices(len(image_rows), size):
                result = scores.zero_shot(rows[slab]) if k < 0 else scores.crops(k, rows[slab])
                values = _as_logits(result, teacher.values, scoring.epsilon, activation)
                z = np.where(rows[slab, None] < 0, np.float32(np.nan), values)
                if k < 0:
                    written["zero_shot"][slab] = z
                else:
                    written["crops"][k, slab] = z
    if teacher.file is not None and teacher.file.is_file():
        record.inputs.append(teacher.file)
    record.facts = {
        "file": teacher.file,
        "images": len(image_rows),
        "in_file": len(scores.ids),
        "passes": scores.passes,
    }
    record.write_beside(logits)


def _as_logits(
    values: npt.NDArray[Any], kind: str, epsilon: float, activation: Activation | None
) -> npt.NDArray[np.float32]:
    """Return S^-1(p) of probabilities clamped to [epsilon, 1 - epsilon], or logits: a softmax's are clamped too."""
    if kind == "probabilities":
        return logit(values, epsilon).astype(np.float32)
    if activation == "sigmoid":
        return values.astype(np.float32)
    most = np.log1p(-epsilon) - np.log(epsilon)
    clamped: npt.NDArray[np.float32] = np.clip(values, -most, most).astype(np.float32)
    return clamped


def _refuse_missing(missing: pd.Index, images: int, teacher: ScoresFileConfig) -> None:
    if missing.empty:
        return
    named = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
    do = "set teacher.scores.missing: drop, or add them" if teacher.missing == "error" else "rerun with a new manifest"
    raise UserError(
        f"teacher.scores.file: {teacher.file} has no scores of {len(missing)} of {images} images ({named}); {do}"
    )
