"""One page that shows what every stage made of the images, and a picture for a README."""

import hashlib
from math import ceil
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from cutsew.audit.review_queue import Reviewed, embeddings, near_duplicates, queue
from cutsew.config.evaluation import EvaluateConfig
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.reporting.cards import Crops, gather
from cutsew.reporting.content import PARTS, Review, Tables, build_report_content, most_gained
from cutsew.reporting.overview_image import COLUMNS, ROWS, write_scenes
from cutsew.reporting.page import render
from cutsew.reporting.page_tables import records
from cutsew.reporting.repeated_stages import without_repeats
from cutsew.reporting.run_data import Run
from cutsew.storage.atomic import write_text
from cutsew.storage.manifest import SPLITS, ids_of, read_manifest
from cutsew.storage.predictions import open_predictions
from cutsew.storage.result_tables import RunThresholds, read_thresholds
from cutsew.storage.tables import read_csv, read_record

MEASURED = ("stage", "split", "images", "with_truth", "labels_per_image", "confidence")
"""Columns of metrics.csv without which there is nothing to show."""

SHOWN = ("id", "path", "width", "height", "digest", "split")
"""Columns of the manifest that the page needs."""

QUEUE, PART = 50, 4
"""The page marks so many images to check next, and one in PART at most; `cutsew next` lists any number."""


def report(
    page: Annotated[Path, typer.Argument(help="The page to write; scenes.png is written next to it.")],
    *,
    metrics: Annotated[Path, typer.Option(help="What evaluate wrote; its other tables lie next to it.")],
    images: Annotated[Path, typer.Option(help="The manifest, images.parquet.")],
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
    history: Annotated[Path | None, typer.Option(help="Losses of the training.")] = None,
    views: Annotated[Path | None, typer.Option(help="The crops' boxes.")] = None,
    maps: Annotated[Path | None, typer.Option(help="Class activation maps and features, maps.zarr.")] = None,
    thresholds: Annotated[Path | None, typer.Option(help="Decision thresholds of all stages, thresholds.csv.")] = None,
    corrections: Annotated[Path | None, typer.Option(help="A human's corrections, corrections.parquet.")] = None,
) -> None:
    """Write one self-contained page about a run, and a picture of six images with their labels."""
    zarrs = {"logits": logits, "fused": fused, "pseudo": pseudo, "targets": targets}
    zarrs |= {"overridden": overridden, "refined": refined, "scores": scores, "tiles": tiles, "ensemble": ensemble}
    shown = [path for path in zarrs.values() if path is not None]
    optional = (metrics, images, labels, history, views, maps, thresholds, corrections)
    by_hand = [corrections] if corrections is not None else []
    given = [*(path for path in optional if path is not None), *shown]
    record = Record("report", STAGES["report"].version, {}, inputs=given)
    outcomes, manifest = open_predictions(zarrs), read_manifest(images, columns=SHOWN)
    ids = {split: ids_of(manifest, split) for split in SPLITS}
    tables, left_out = without_repeats(_read_tables(metrics, history), outcomes, ids)
    by_stage = read_thresholds(thresholds, outcomes["zero_shot"].classes) if thresholds is not None else {}
    decided = RunThresholds(_threshold(metrics), by_stage)
    run = Run(manifest, outcomes, tables.metrics, decided, labels, corrections)
    crops = Crops(fused, logits, views)
    scenes = page.with_name("scenes.png")
    folder = page.resolve().parent
    corrected = set(run.corrections.images) if run.corrections is not None else set()
    reviewed = Reviewed(run.images, outcomes, decided, corrected, views)
    copies = near_duplicates(reviewed)
    chosen = queue(reviewed, min(QUEUE, ceil(len(run.images) / PART)))["id"].tolist()
    review = Review(chosen, copies.pairs, lambda ids: embeddings(reviewed, ids))
    with tqdm(total=PARTS + 2, desc="report", unit="part") as steps:
        content = build_report_content(run, tables, crops, maps, review, steps.update)
        digest = hashlib.sha256(" ".join(input_digest(path) for path in (*shown, *by_hand)).encode()).hexdigest()[:16]
        names = (folder.parent.name, folder.name)
        write_text(page, render(names, run, tables, content, records(given), digest, left_out))
        steps.update()
        write_scenes(scenes, gather(run, most_gained(run, COLUMNS * ROWS, "test"), crops))
        steps.update()
    record.facts = {"images": [card.id for card in content.cards], "next": list(review.queue)}
    record.facts |= {"copies": [list(pair) for pair in copies.pairs], "compared_for_copies": copies.compared}
    record.write(page.with_suffix(".json"), {path.name: input_digest(path) for path in (page, scenes)})


def _read_tables(metrics: Path, history: Path | None) -> Tables:
    """Read what evaluate wrote.

    Raises:
        UserError: a table is not there.

    """
    paths = [metrics.with_name(f"{name}.csv") for name in ("per_class", "confidence", "agreement")]
    tables = {path.stem: read_csv(path, ["split"], keep_default_na=False, na_values="") for path in paths}
    rules = read_csv(metrics.with_name("thresholds_f1.csv"), ["rule"], keep_default_na=False, na_values="")
    losses = read_csv(history, ["step", "m_loss", "e_loss"]) if history else None
    return Tables(read_csv(metrics, MEASURED), **tables, rules=rules, history=losses)


def _threshold(metrics: Path) -> float:
    """Read the decision threshold of rule fixed from the record of evaluate."""
    return EvaluateConfig.model_validate(read_record(metrics.with_suffix(".json"), "settings", "evaluate")).threshold
