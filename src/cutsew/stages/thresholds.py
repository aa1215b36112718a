"""Stage thresholds: per-class decision thresholds, without labels."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from tqdm import tqdm

from cutsew.config.schema import ThresholdsConfig
from cutsew.errors import UserError
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import FIXED, Floats, count, expected_share, mixture
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage import result_tables as table
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.zarr_reader import labels_of, open_group

log = logging.getLogger(__name__)

SAMPLE = 100_000
"""Images that thresholds are chosen on; of more, every second, third, ..."""


def thresholds(
    scores: Annotated[Path, typer.Argument(help="scores.zarr, the student's logits of the held-out images.")],
    out: Annotated[Path, typer.Argument(help="thresholds.csv, to be written.")],
    *,
    logits: Annotated[Path, typer.Option(help="Zero-shot logits.")],
    refined: Annotated[Path, typer.Option(help="The training images' labels after EM.")],
    settings: SettingsOption,
) -> None:
    """Suggest per-class decision thresholds, without labels."""
    record = Record("thresholds", STAGES["thresholds"].version, settings, [scores, logits, refined])
    chosen = ThresholdsConfig.model_validate(settings["thresholds"])
    student, labels, zero_shot = (
        StagePredictions("student", scores),
        StagePredictions("refined", refined),
        StagePredictions("zero_shot", logits),
    )
    if not student.classes == labels.classes == zero_shot.classes:
        raise UserError(f"{scores}: its classes are not those of {refined} and {logits}; run the workflow again")
    trained, held_out = (labels_of(open_group(path), "image") for path in (refined, scores))
    share: Floats = _mean(labels, trained)
    if settings.get("targets", {}).get("count") in (None, "auto"):  # else they sum to the number that the user expects
        share = expected_share(_mean(zero_shot, trained), share)
    # Without held-out images the refined labels stand in: the student was trained to give them.
    z = student.read(_sample(held_out)) if held_out else labels.read(_sample(trained))
    fitted = mixture(z)
    lacking = [name for name, value in zip(student.classes, fitted, strict=True) if np.isnan(value)]
    if lacking:
        log.warning("the logits of %s are not bimodal; rule mixture uses %s for it", ", ".join(lacking), FIXED)
    by_rule = {
        "fixed": [FIXED] * z.shape[1],
        "count": count(z, share).tolist(),
        "mixture": np.where(np.isnan(fitted), FIXED, fitted).tolist(),
    }
    table.write_thresholds(out, student.classes, table.Thresholds(chosen.rule, by_rule), z, share.tolist())
    record.facts = {"images": len(z), "held_out": bool(held_out), "expected_labels_per_image": float(share.sum())}
    record.facts["without_mixture"] = lacking
    record.write_beside(out)


def _mean(outcome: StagePredictions, ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Mean probability of each class over some images, a slice at a time."""
    total = np.zeros(len(outcome.classes))
    with tqdm(total=len(ids), desc=f"expecting from {outcome.stage}", unit="image") as bar:
        for block in outcome.slices(ids):
            total += sigmoid(block.astype(np.float64)).sum(axis=0)
            bar.update(len(block))
    return total / len(ids)


def _sample(ids: Sequence[str]) -> Sequence[str]:
    return ids[:: -(-len(ids) // SAMPLE)]
