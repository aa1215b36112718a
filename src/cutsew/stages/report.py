"""One page that shows what every stage made of the photos, and a picture for a README."""

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from tqdm import tqdm

from cutsew.artefacts.atomic import write_text
from cutsew.artefacts.manifest import read_manifest
from cutsew.artefacts.outcome import open_outcomes
from cutsew.artefacts.record import Record, input_digest
from cutsew.config.model import Evaluate
from cutsew.errors import UserError
from cutsew.plan import STAGES
from cutsew.reporting.gallery import Gallery
from cutsew.reporting.page import Tables, render
from cutsew.reporting.provenance import records
from cutsew.reporting.scenes import COLUMNS, ROWS, write_scenes

GAINED, DRAWN = 6, 6
"""Photos of the gallery: those that gained most labels, and a sample."""


def report(
    page: Annotated[Path, typer.Argument(help="The page to write; scenes.png is written beside it.")],
    *,
    metrics: Annotated[Path, typer.Option(help="What evaluate wrote; its other tables lie beside it.")],
    images: Annotated[Path, typer.Option(help="The manifest, images.parquet.")],
    logits: Annotated[Path, typer.Option(help="Zero-shot logits.")],
    fused: Annotated[Path, typer.Option(help="Fused logits.")],
    pseudo: Annotated[Path, typer.Option(help="Corrected pseudo-labels.")],
    refined: Annotated[Path | None, typer.Option(help="Pseudo-labels after training; train photos.")] = None,
    scores: Annotated[Path | None, typer.Option(help="The student's logits; test photos.")] = None,
    labels: Annotated[Path | None, typer.Option(help="True labels, labels.parquet.")] = None,
    history: Annotated[Path | None, typer.Option(help="Losses of the training.")] = None,
    views: Annotated[Path | None, typer.Option(help="The crops' boxes.")] = None,
) -> None:
    """Write one self-contained page about a run, and a picture of six photos with their labels."""
    zarrs = {"logits": logits, "fused": fused, "pseudo": pseudo, "refined": refined, "scores": scores}
    given = [p for p in (metrics, images, *zarrs.values(), labels, history, views) if p is not None]
    record = Record("report", STAGES["report"].version, {}, inputs=given)
    tables = _read_tables(metrics, history)
    threshold = _threshold(metrics)
    outcomes = open_outcomes(zarrs)
    gallery = Gallery(read_manifest(images), outcomes, threshold, fused, views, labels)
    gained = gallery.most_gained(GAINED)
    scenes = page.with_name("scenes.png")
    steps = tqdm(total=3, desc="report", unit="part")
    cards = gallery.cards([*gained, *gallery.drawn(DRAWN, gained)])
    steps.update()
    folder = page.resolve().parent
    html = render(
        (folder.parent.name, folder.name), tables, outcomes["zero_shot"].classes, threshold, cards, records(given)
    )
    write_text(page, html)
    steps.update()
    write_scenes(scenes, gallery.cards(gallery.most_gained(COLUMNS * ROWS, "test")))
    steps.update()
    steps.close()
    record.facts = {"photos": [card.id for card in cards]}
    record.write(page.with_suffix(".json"), {path.name: input_digest(path) for path in (page, scenes)})


def _read_tables(metrics: Path, history: Path | None) -> Tables:
    """Read what evaluate wrote.

    Raises:
        UserError: a table is not there.

    """
    beside = [metrics.with_name(f"{name}.csv") for name in ("per_class", "confidence", "agreement")]
    for path in (metrics, *beside, *([history] if history else [])):
        if not path.is_file():
            raise UserError(f"{path}: no such table; run the workflow to make it")
    per_class, confidence, agreement = (pd.read_csv(path, keep_default_na=False, na_values="") for path in beside)
    read = pd.read_csv(history) if history else None
    return Tables(pd.read_csv(metrics), per_class, confidence, agreement, read)


def _threshold(metrics: Path) -> float:
    """Read from the record of evaluate at what probability a class counted as named."""
    record = metrics.with_suffix(".json")
    if not record.is_file():
        raise UserError(f"{record}: no such record; run `cutsew evaluate` to make it")
    settings = json.loads(record.read_text(encoding="utf-8"))["settings"]
    return Evaluate.model_validate(settings["evaluate"]).threshold
