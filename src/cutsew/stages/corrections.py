"""Stage corrections: a human's corrections of labels, matched to this run's images and classes."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from cutsew.data.corrections_csv import corrections_of
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.label_corrections import Corrections, in_words, write_corrections
from cutsew.storage.manifest import read_manifest

log = logging.getLogger(__name__)


def corrections(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with the columns image, class and present (1 or 0), labels.csv or Label Studio's JSON"
        ),
    ],
    out: Annotated[Path, typer.Argument(help="corrections.parquet, to be written")],
    settings: SettingsOption,
) -> None:
    """Read manual label corrections and match them to the images."""
    record = Record("corrections", STAGES["corrections"].version, settings, [images, file])
    image_rows = read_manifest(images, columns=("id", "split"))
    table = corrections_of(file, [str(name) for name in image_rows["id"]], settings["classes"])
    table["split"] = table["image"].map(image_rows.set_index("id")["split"]).astype(object)
    resolved = Corrections(table, settings["classes"])
    write_corrections(out, resolved)
    train, test = resolved.counts
    record.facts = {"corrections": len(resolved), "images": len(resolved.images), "train": train, "test": test}
    record.facts |= {"by": resolved.authors}
    record.facts |= {"from": min(table["at"], default=""), "to": max(table["at"], default="")}
    record.write_beside(out)
    log.info("corrections: %s", in_words(train, test, student=settings["student"]["kind"] != "none"))
