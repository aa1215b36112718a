"""Stage labels_table: every photo's last labels in one table, labels.csv and labels.parquet."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from cutsew.audit.label_export import last_labels, thresholds_of
from cutsew.audit.label_formats import write_csv, write_parquet
from cutsew.config.schema import Evaluate
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.stages.options import SettingsOption
from cutsew.storage.label_corrections import read_corrections
from cutsew.storage.manifest import read_manifest
from cutsew.storage.predictions import Outcome

log = logging.getLogger(__name__)


def labels_table(
    images: Annotated[Path, typer.Argument(help="The manifest, images.parquet.")],
    table: Annotated[Path, typer.Argument(help="labels.csv, to be written; labels.parquet is written next to it.")],
    *,
    settings: SettingsOption,
    stage: Annotated[list[str], typer.Option(help="STAGE=PATH, a stage's Zarr; the last one of a split counts.")],
    thresholds: Annotated[Path | None, typer.Option(help="The student's decision thresholds, thresholds.csv.")] = None,
    corrections: Annotated[Path | None, typer.Option(help="A human's corrections, corrections.parquet.")] = None,
) -> None:
    """Write every photo's labels and probabilities as CSV and Parquet."""
    paths = {name: Path(path) for name, _, path in (text.partition("=") for text in stage)}
    given = [images, *paths.values(), *(path for path in (thresholds, corrections) if path is not None)]
    record = Record("labels_table", STAGES["labels_table"].version, settings, given)
    outcomes = {name: Outcome(name, path) for name, path in paths.items()}
    classes = next(iter(outcomes.values())).classes
    decided = thresholds_of(thresholds, classes, Evaluate.model_validate(settings["evaluate"]).threshold)
    said = read_corrections(corrections, classes) if corrections is not None else None
    photos = read_manifest(images, columns=("id", "path", "split"))
    labels = last_labels(photos, outcomes, decided, said)
    second = table.with_suffix(".parquet")
    with tqdm(total=2 * len(labels.photos), desc="labels", unit="row") as bar:
        for path, write in ((table, write_csv), (second, write_parquet)):
            count = write(path, classes, labels.shown(bar))
    record.facts = {"photos": len(labels.photos), "without_finite_labels": labels.left_out, "labels": count}
    record.facts |= {"stages": labels.stages, "thresholds": labels.told}
    record.facts["by_human"] = len(labels.corrected) if labels.corrected is not None else 0
    record.write(table.with_suffix(".json"), {path.name: input_digest(path) for path in (table, second)})
    if labels.left_out:
        log.warning("%d images without finite labels are excluded", labels.left_out)
    log.info("labels: %d photos, %d labels", len(labels.photos), count)
