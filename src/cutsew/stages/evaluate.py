"""Measuring every stage, against the truth where there is any."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.config.evaluation import EvaluateConfig
from cutsew.method.metrics import Ranked, agreement
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import named
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.reporting.measures import Row, StageMeasures
from cutsew.stages.options import SettingsOption
from cutsew.storage.csv_rows import write_csv
from cutsew.storage.manifest import SPLITS, batched_slices, find_train_test_duplicates, ids_of, read_manifest
from cutsew.storage.predictions import (
    REFERENCE,
    SPLIT_STAGES,
    StagePredictions,
    class_blocks,
    images_at_once,
    open_predictions,
    read_truth,
)
from cutsew.storage.result_tables import RunThresholds, as_text, read_thresholds
from cutsew.storage.tables import read_record
from cutsew.storage.zarr_layout import folder_of

BY_HAND = ("overridden", "refined", "student", "tiles", "ensemble")
"""Stages that rest on a human's corrections where there are any."""

BESIDE = ("per_class.csv", "confidence.csv", "agreement.csv", "thresholds_f1.csv")
RULE_COLUMNS = ("stage", "split", "rule", "images", "labels_per_image", "mean_F1", "CP", "CR", "CF1", "OP", "OR", "OF1")
"""Of thresholds_f1.csv: the last labels of the training images, and the student's of the held-out ones."""


COMPARED = 4
"""Slices of a read into which one is cut where stages are compared, since the ranks of all of them are held."""


class Tables(NamedTuple):
    """Rows of metrics.csv and of the tables next to it."""

    metrics: list[Row]
    per_class: list[Row]
    confidence: list[Row]
    agreement: list[Row]
    rules: list[Row]


def evaluate(
    images: Annotated[Path, typer.Argument(help="The manifest, images.parquet.")],
    metrics: Annotated[Path, typer.Argument(help="Table to write; four more are written next to it.")],
    *,
    settings: SettingsOption,
    logits: Annotated[Path, typer.Option(help="Zero-shot logits.")],
    fused: Annotated[Path, typer.Option(help="Fused logits.")],
    pseudo: Annotated[Path, typer.Option(help="Corrected pseudo-labels.")],
    targets: Annotated[Path | None, typer.Option(help="Labels of a chosen number per image.")] = None,
    overridden: Annotated[Path | None, typer.Option(help="Labels with a human's corrections.")] = None,
    refined: Annotated[Path | None, typer.Option(help="Pseudo-labels after training; train images.")] = None,
    scores: Annotated[Path | None, typer.Option(help="The student's logits; test images.")] = None,
    tiles: Annotated[Path | None, typer.Option(help="The student's logits of wholes and tiles; test images.")] = None,
    ensemble: Annotated[Path | None, typer.Option(help="Student and teacher combined; test images.")] = None,
    labels: Annotated[Path | None, typer.Option(help="True labels, truth.parquet.")] = None,
    thresholds: Annotated[Path | None, typer.Option(help="Decision thresholds of all stages, thresholds.csv.")] = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="KIND=PATH, a reference student's logits; may be repeated.")
    ] = None,
) -> None:
    """Measure every stage, against the truth where there is any."""
    zarrs = {"logits": logits, "fused": fused, "pseudo": pseudo, "targets": targets}
    zarrs |= {"overridden": overridden, "refined": refined, "scores": scores, "tiles": tiles, "ensemble": ensemble}
    references = {kind: Path(path) for kind, _, path in (text.partition("=") for text in reference or [])}
    inputs = [path for path in (images, *zarrs.values(), labels, thresholds, *references.values()) if path is not None]
    record = Record("evaluate", STAGES["evaluate"].version, settings, inputs=inputs)
    chosen = EvaluateConfig.model_validate(settings["evaluate"])
    outcomes = open_predictions(zarrs, references)
    classes = outcomes["zero_shot"].classes
    suggested = read_thresholds(thresholds, classes) if thresholds is not None else {}
    decided = RunThresholds(chosen.threshold, suggested)
    tables = _tables(outcomes, images, labels, chosen, decided)
    _name_twins(tables.metrics, images)
    if overridden is not None:
        _name_corrections(tables.metrics, overridden)
    digests = {}
    for name, rows in zip((metrics.name, *BESIDE), tables, strict=True):
        write_csv(metrics.with_name(name), _frame(name, rows), float_format="%.6g")
        digests[name] = input_digest(metrics.with_name(name))
    record.facts = {"truth": labels is not None, "classes": len(next(iter(outcomes.values())).classes)}
    record.write(metrics.with_suffix(".json"), digests)
    typer.echo(as_text(pd.DataFrame(tables.metrics)))


def _tables(
    outcomes: dict[str, StagePredictions],
    images: Path,
    labels: Path | None,
    chosen: EvaluateConfig,
    decided: RunThresholds,
) -> Tables:
    tables = Tables([], [], [], [], [])
    splits = read_manifest(images, columns=("id", "split"))
    last = next(stage for stage in reversed(SPLIT_STAGES["train"]) if stage in outcomes)
    for split in SPLITS:
        ids = ids_of(splits, split)
        if ids.empty:
            continue
        available = [
            outcomes[stage] for stage in SPLIT_STAGES[split] if stage in outcomes and outcomes[stage].covers(ids)
        ]
        if not available:
            continue
        references = [outcomes[stage] for stage in outcomes if split == "test" and stage.startswith(REFERENCE)]
        by_rules = last if split == "train" else "student"
        measured = [
            StageMeasures(outcome, split, len(ids), chosen, decided, outcome.stage == by_rules)
            for outcome in [*available, *references]
        ]
        _measure(measured, ids, labels)
        for stage in measured:
            tables.metrics.append(stage.whole())
            tables.per_class.extend(stage.per_class())
            tables.confidence.extend(stage.histogram())
            tables.rules.extend(stage.of_rules())
        tables.agreement.extend(_compare(available, split, ids, decided))
    return tables


def _measure(measured: Sequence[StageMeasures], ids: pd.Index, labels: Path | None) -> None:
    """Read each stage by blocks of images, then all of them by blocks of classes next to the truth."""
    for stage in tqdm(measured, desc="reading", unit="stage"):
        for z in stage.outcome.slices(ids):
            stage.add_images(z)
    classes = measured[0].outcome.classes
    for block in tqdm(class_blocks(len(ids), len(classes)), desc="measuring", unit="block"):
        unknown = np.full((len(ids), block.stop - block.start), -1, dtype=np.int8)
        truth = read_truth(labels, ids, classes[block]) if labels is not None else unknown
        for stage in measured:
            stage.add_classes(block, stage.outcome.columns(ids, block), truth)


def _name_twins(metrics: list[Row], images: Path) -> None:
    """Remark on held-out images that were trained on."""
    duplicates = find_train_test_duplicates(read_manifest(images, columns=("id", "digest", "split")))
    for row in metrics if duplicates else ():
        if row["split"] == "test":
            trained = (
                f"{len(duplicates)} of the held-out images are among the training images too, {duplicates[0]} "
                f"among them"
            )
            row["remark"] = "; ".join(filter(None, (row["remark"], trained)))


def _name_corrections(metrics: list[Row], overridden: Path) -> None:
    """Say on how many labels set by hand each stage rests."""
    count = read_record(folder_of(overridden).with_suffix(".json"), "facts", "corrections")
    for row in metrics:
        row["by_hand"] = count if row["stage"] in BY_HAND else 0


def _frame(name: str, rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(RULE_COLUMNS) if name == "thresholds_f1.csv" else None)


def _compare(stages: Sequence[StagePredictions], split: str, ids: pd.Index, decided: RunThresholds) -> list[Row]:
    """Compare all pairs of stages, a slice of images at a time; each stage is ranked once."""
    pairs = list(itertools.combinations(range(len(stages)), 2))
    totals, defined = np.zeros((len(pairs), 3)), np.zeros(len(pairs), dtype=np.int64)
    size = max(1, images_at_once(len(stages[0].classes)) // COMPARED) if pairs else 1
    for rows in tqdm(list(batched_slices(len(ids) if pairs else 0, size)), desc=f"comparing {split}", unit="slice"):
        ranked = []
        for stage in stages:
            z = stage.read(ids[rows])
            ranked.append(Ranked.of(sigmoid(z), named(z, decided.of(stage.stage, z.shape[1]))))
        for pair, (first, second) in enumerate(pairs):
            each = agreement(ranked[first], ranked[second])
            totals[pair] += np.nansum(each, axis=0)
            defined[pair] += np.isfinite(each[:, 2]).sum()
    return [
        {
            "split": split,
            "first": stages[first].stage,
            "second": stages[second].stage,
            "top1": totals[pair, 0] / len(ids),
            "jaccard": totals[pair, 1] / len(ids),
            "spearman": totals[pair, 2] / defined[pair] if defined[pair] else None,
        }
        for pair, (first, second) in enumerate(pairs)
    ]
