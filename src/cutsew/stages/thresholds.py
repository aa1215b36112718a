"""Stage thresholds: decision thresholds of every stage, per class, by one rule that reads no labels."""

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.config.evaluation import EvaluateConfig, ThresholdsConfig
from cutsew.errors import some
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import FEW, Floats, count, count_few, expected_share, mixture
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.manifest import SPLITS, ids_of, read_manifest
from cutsew.storage.predictions import SPLIT_STAGES, ZARRS, StagePredictions, class_blocks, open_predictions
from cutsew.storage.result_tables import StageThresholds, Thresholds, rule_in_words, write_thresholds

log = logging.getLogger(__name__)

SAMPLE = 100_000
"""Images that thresholds are chosen on; of more, every second, third, ..."""


def thresholds(
    images: Annotated[Path, typer.Argument(help="The manifest, images.parquet.")],
    out: Annotated[Path, typer.Argument(help="thresholds.csv, to be written.")],
    *,
    stage: Annotated[list[str], typer.Option(help="STAGE=PATH, a stage's Zarr; may be repeated.")],
    settings: SettingsOption,
) -> None:
    """Choose decision thresholds per stage and class, without labels."""
    paths = {name: Path(path) for name, _, path in (text.partition("=") for text in stage)}
    record = Record("thresholds", STAGES["thresholds"].version, settings, [images, *paths.values()])
    rule = ThresholdsConfig.model_validate(settings["thresholds"]).rule
    fixed = EvaluateConfig.model_validate(settings["evaluate"]).threshold
    outcomes = open_predictions({ZARRS[name]: path for name, path in paths.items()})
    splits = read_manifest(images, columns=("id", "split"))
    trained, held_out = (ids_of(splits, split) for split in SPLITS)
    labels = [name for name in SPLIT_STAGES["train"] if name in outcomes][-1]
    share: Floats = _mean(outcomes[labels], trained)
    if settings.get("targets", {}).get("labels_per_image") is None:  # else the labels sum to the number expected
        share = expected_share(_mean(outcomes["zero_shot"], trained), share)
    # Without held-out images the labels stand in for the student's answers: it was trained to give them.
    stand_in = outcomes[labels], trained
    rows: list[StageThresholds] = []
    lacking: list[str] = []
    for name, outcome in tqdm(outcomes.items(), desc="thresholds", unit="stage"):
        source, ids = (outcome, trained) if name != "student" else (outcome, held_out) if len(held_out) else stand_in
        sample = _sample(ids)
        match = count_few if ids is held_out and 1 < len(ids) < FEW else count
        parts: list[StageThresholds] = []
        for block in class_blocks(len(sample), len(outcome.classes)):
            z = source.columns(sample, block)
            by_rule = {"fixed": [fixed] * z.shape[1], "count": match(z, share[block]).tolist()}
            if rule == "mixture" or name in ("student", labels):
                fitted = mixture(z)
                by_rule["mixture"] = np.where(np.isnan(fitted), fixed, fitted).tolist()
                unfit = np.isnan(fitted)
                lacking += [f"{name}: {c}" for c, none in zip(outcome.classes[block], unfit, strict=True) if none]
            parts.append(StageThresholds.of_logits(name, Thresholds(rule, by_rule), z, share[block].tolist()))
        rows.append(StageThresholds.joined(parts))
    if lacking:
        log.warning("not bimodal, so that rule mixture uses %g: %s", fixed, some(lacking))
    write_thresholds(out, outcomes[labels].classes, rows)
    record.facts = {"labels": labels, "rule": rule_in_words(rule, fixed), "held_out": not held_out.empty}
    record.facts["few_held_out"] = 1 < len(held_out) < FEW
    record.facts |= {"expected_labels_per_image": float(share.sum()), "without_mixture": lacking}
    record.write_beside(out)
    log.info("thresholds: rule %s; %.2f labels an image expected", rule_in_words(rule, fixed), share.sum())


def _mean(outcome: StagePredictions, ids: pd.Index) -> npt.NDArray[np.float64]:
    """Mean probability of each class over some images, a slice at a time."""
    total = np.zeros(len(outcome.classes))
    with tqdm(total=len(ids), desc=f"expecting from {outcome.stage}", unit="image") as bar:
        for block in outcome.slices(ids):
            total += sigmoid(block.astype(np.float64)).sum(axis=0)
            bar.update(len(block))
    return total / len(ids)


def _sample(ids: pd.Index) -> pd.Index:
    return ids[:: -(-len(ids) // SAMPLE)]
