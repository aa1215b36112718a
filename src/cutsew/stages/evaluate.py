"""Measuring every stage, against the truth where there is any."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.config.schema import EvaluateConfig
from cutsew.errors import some
from cutsew.method.metrics import (
    BINS,
    FEW,
    LabelStats,
    agreement,
    average_precision,
    describe_degenerate,
    f1,
    inversions,
    label_stats,
    mean_average_precision,
    precision_recall,
    predict_top_k,
)
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import named
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.stages.options import SettingsOption
from cutsew.storage.atomic import atomic_path
from cutsew.storage.manifest import SPLITS, find_train_test_duplicates, read_manifest
from cutsew.storage.predictions import REFERENCE, SPLIT_STAGES, StagePredictions, open_predictions, read_truth
from cutsew.storage.result_tables import RunThresholds, Thresholds, as_text, read_thresholds
from cutsew.storage.tables import read_record
from cutsew.storage.zarr_layout import folder_of

Row = dict[str, Any]
BY_HAND = ("overridden", "refined", "student", "tiles", "ensemble")
"""Stages that rest on a human's corrections where there are any."""

BESIDE = ("per_class.csv", "confidence.csv", "agreement.csv", "thresholds_f1.csv")
RULE_COLUMNS = ("stage", "split", "rule", "images", "labels_per_image", "mean_F1", "CP", "CR", "CF1", "OP", "OR", "OF1")
"""Of thresholds_f1.csv: the last labels of the training images, and the student's of the held-out ones."""


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
    for split, stage in (
        ("train", next(s for s in reversed(SPLIT_STAGES["train"]) if s in outcomes)),
        ("test", "student"),
    ):
        if stage in suggested:
            tables.rules.extend(_of_rules(outcomes[stage], split, images, labels, suggested[stage]))
    digests = {}
    for name, rows in zip((metrics.name, *BESIDE), tables, strict=True):
        with atomic_path(metrics.with_name(name)) as draft:
            _frame(name, rows).to_csv(draft, index=False, float_format="%.6g")
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
    metrics, per_class, confidence, agreements, _ = tables = Tables([], [], [], [], [])
    for split in SPLITS:
        ids = list(read_manifest(images, split=split)["id"])
        available = [
            outcomes[stage] for stage in SPLIT_STAGES[split] if stage in outcomes and outcomes[stage].covers(ids)
        ]
        if not ids or not available:
            continue
        references = [outcomes[stage] for stage in outcomes if split == "test" and stage.startswith(REFERENCE)]
        truth = read_truth(labels, ids, available[0].classes) if labels is not None else None
        for outcome in tqdm([*available, *references], desc=f"measuring {split}", unit="stage"):
            whole, classes, histogram = _measure(outcome, split, ids, truth, chosen, decided)
            metrics.append(whole)
            per_class.extend(classes)
            confidence.extend(histogram)
        for first, second in itertools.combinations(available, 2):
            agreements.append(_compare(first, second, split, ids, decided))
    return tables


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


def _of_rules(
    outcome: StagePredictions, split: str, images: Path, labels: Path | None, suggested: Thresholds
) -> Iterator[Row]:
    """Measure the labels that each rule of thresholds gives the images of a split."""
    ids = list(read_manifest(images, split=split)["id"])
    if not ids:
        return
    z = outcome.read(ids)
    unknown = np.full(z.shape, -1, dtype=np.int8)
    truth = read_truth(labels, ids, outcome.classes) if labels is not None else unknown
    for rule in suggested.by_rule:
        chosen = named(z, suggested.choose(rule))
        row = {
            "stage": outcome.stage,
            "split": split,
            "rule": rule,
            "images": len(ids),
            "labels_per_image": chosen.sum(axis=1).mean(),
        }
        yield row | {"mean_F1": mean_average_precision(f1(truth, chosen)), **vars(precision_recall(truth, chosen))}


def _measure(
    outcome: StagePredictions,
    split: str,
    ids: list[str],
    truth: npt.NDArray[np.int8] | None,
    chosen: EvaluateConfig,
    decided: RunThresholds,
) -> tuple[Row, list[Row], list[Row]]:
    """Return one stage's rows of metrics, per_class and confidence."""
    z = outcome.read(ids)
    probabilities = sigmoid(z)
    predicted = named(z, decided.of(outcome.stage, z.shape[1]))
    seen = label_stats(probabilities, predicted)
    key = {"stage": outcome.stage, "split": split}
    against = _against_truth(z, predicted, truth, chosen)
    classes = against.pop("classes")
    whole = {**key, "images": len(ids), **against}
    whole |= {"labels_per_image": seen.labels_per_image, "confidence": seen.confidence}
    remarks = [describe_degenerate(seen.labels, len(ids), outcome.classes)]
    if truth is not None:
        remarks += [_images_measured(whole["with_truth"], len(ids)), _classes_measured(truth, outcome.classes)]
    whole["remark"] = "; ".join(filter(None, remarks))
    per_class = [
        {**key, "class": name, **row, "labels": int(count)}
        for name, row, count in zip(outcome.classes, classes, seen.labels, strict=True)
    ]
    return whole, per_class, [{**key, **row} for row in _histogram(seen)]


def _images_measured(with_truth: int, images: int) -> str:
    """Say how many images the measures are of where some have no truth."""
    return f"measured on the {with_truth} of {images} images with truth" if 0 < with_truth < images else ""


def _classes_measured(truth: npt.NDArray[np.int8], classes: Sequence[str]) -> str:
    """Say which classes mAP leaves out where it leaves out some but not all."""
    known, positive = np.atleast_1d((truth >= 0).any(axis=0)), np.atleast_1d((truth == 1).any(axis=0))
    if positive.all() or not positive.any():
        return ""
    left_out = {
        "no truth for": [name for name, available in zip(classes, known, strict=True) if not available],
        "no image with": [name for name, has_truth in zip(classes, known & ~positive, strict=True) if has_truth],
    }
    why = ", ".join(f"{reason} {some(names)}" for reason, names in left_out.items() if names)
    return f"mAP over {positive.sum()} of {len(classes)} classes: {why}"


def _against_truth(
    z: npt.NDArray[np.float32],
    predicted: npt.NDArray[np.bool_],
    truth: npt.NDArray[np.int8] | None,
    chosen: EvaluateConfig,
) -> Row:
    """Return the columns that need truth, empty without it; under `classes`, those of each class."""
    if truth is None:
        truth = np.full(z.shape, -1, dtype=np.int8)
    ap = average_precision(truth, z)
    above = inversions(truth, z)
    positives = (truth == 1).sum(axis=0)
    overall = precision_recall(truth, predicted)
    top = precision_recall(truth, predict_top_k(z, chosen.top))
    known = np.atleast_1d((truth >= 0).any(axis=0))
    common = positives >= FEW
    return {
        "with_truth": int((truth >= 0).any(axis=1).sum()),
        "mAP": mean_average_precision(ap),
        "mAP_classes": int(np.isfinite(ap).sum()) if known.any() else None,
        "mAP_10": mean_average_precision(ap[common]) if common.any() else None,
        "mAP_10_classes": int(common.sum()) if known.any() else None,
        **vars(overall),
        **{f"top{chosen.top}_{name}": value for name, value in vars(top).items()},
        "inversions": int(above.sum()) if known.any() else None,
        "classes": [
            {"positives": int(n) if has_truth else None, "AP": value, "inversions": int(count) if has_truth else None}
            for n, value, count, has_truth in zip(positives, ap, above, known, strict=True)
        ],
    }


def _histogram(seen: LabelStats) -> list[Row]:
    edges = np.linspace(0, 1, BINS + 1)
    return [
        {"low": edges[b], "high": edges[b + 1], "top1": int(seen.top1[b]), "every": int(seen.every[b])}
        for b in range(BINS)
    ]


def _compare(
    first: StagePredictions, second: StagePredictions, split: str, ids: list[str], decided: RunThresholds
) -> Row:
    """Compare two stages slice by slice, so that only a slice of each is in memory."""
    of_first, of_second = (decided.of(outcome.stage, len(outcome.classes)) for outcome in (first, second))
    pairs = zip(first.slices(ids), second.slices(ids), strict=True)
    each = np.concatenate(
        [agreement(sigmoid(a), sigmoid(b), named(a, of_first), named(b, of_second)) for a, b in pairs]
    )
    defined = each[np.isfinite(each[:, 2]), 2]
    return {
        "split": split,
        "first": first.stage,
        "second": second.stage,
        "top1": each[:, 0].mean(),
        "jaccard": each[:, 1].mean(),
        "spearman": defined.mean() if len(defined) else None,
    }
