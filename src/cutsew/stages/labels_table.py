"""Stage labels_table: every image's last labels in one table, labels.csv and labels.parquet."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from cutsew.audit.label_export import Batch, last_labels
from cutsew.audit.label_formats import write_table
from cutsew.config.evaluation import EvaluateConfig
from cutsew.method.correct import LEFT
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.stages.options import SettingsOption
from cutsew.storage.label_corrections import read_corrections
from cutsew.storage.manifest import read_manifest
from cutsew.storage.predictions import StagePredictions
from cutsew.storage.result_tables import RunThresholds, read_thresholds

log = logging.getLogger(__name__)


def labels_table(
    images: Annotated[Path, typer.Argument(help="The manifest, images.parquet.")],
    table: Annotated[Path, typer.Argument(help="labels.csv, to be written; labels.parquet is written next to it.")],
    *,
    settings: SettingsOption,
    stage: Annotated[list[str], typer.Option(help="STAGE=PATH, a stage's Zarr; the last one of a split counts.")],
    thresholds: Annotated[Path | None, typer.Option(help="Decision thresholds of all stages, thresholds.csv.")] = None,
    corrections: Annotated[Path | None, typer.Option(help="A human's corrections, corrections.parquet.")] = None,
) -> None:
    """Write every image's labels and probabilities as CSV and Parquet."""
    paths = {name: Path(path) for name, _, path in (text.partition("=") for text in stage)}
    given = [images, *paths.values(), *(path for path in (thresholds, corrections) if path is not None)]
    record = Record("labels_table", STAGES["labels_table"].version, settings, given)
    outcomes = {name: StagePredictions(name, path) for name, path in paths.items()}
    classes = next(iter(outcomes.values())).classes
    fixed = EvaluateConfig.model_validate(settings["evaluate"]).threshold
    decided = RunThresholds(fixed, read_thresholds(thresholds, classes) if thresholds is not None else {})
    stated = read_corrections(corrections, classes) if corrections is not None else None
    image_rows = read_manifest(images, columns=("id", "path", "split"))
    labels = last_labels(image_rows, outcomes, decided, stated)
    second = table.with_suffix(".parquet")
    written = Counter[str]()

    def counted(batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            written.update(images=len(batch.images), by_human=int((batch.said != LEFT).sum()))
            yield batch

    with tqdm(total=len(image_rows), desc="labels", unit="image") as bar:
        count = write_table((table, second), classes, counted(labels.shown(bar)))
    excluded = len(image_rows) - written["images"]
    record.facts = {"images": written["images"], "without_finite_labels": excluded, "labels": count}
    record.facts |= {"stages": labels.stages, "thresholds": labels.rules, "by_human": written["by_human"]}
    record.write(table.with_suffix(".json"), {path.name: input_digest(path) for path in (table, second)})
    if excluded:
        log.warning("%d images without finite labels are excluded", excluded)
    log.info("labels: %d images, %d labels; rule %s", written["images"], count, decided.in_words())
