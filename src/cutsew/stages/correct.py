"""Stage correct: fused labels become pseudo-labels (Eq. 9)."""

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from cutsew.config.method import parse_correct
from cutsew.method.correct import correct as correct_labels
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.manifest import batched_slices
from cutsew.storage.zarr_layout import Answers, folder_of, label_spec
from cutsew.storage.zarr_reader import array_of, open_group, read
from cutsew.storage.zarr_writer import CopiedCoordinate, new_group


def correct(
    fused: Annotated[Path, typer.Argument(help="fused.zarr")],
    pseudo: Annotated[Path, typer.Argument(help="pseudo.zarr, written")],
    settings: SettingsOption,
) -> None:
    """Lift the top-beta classes (Eq. 9)."""
    record = Record("correct", STAGES["correct"].version, settings, [fused])
    rule = parse_correct(settings["correct"])
    labels = open_group(fused)
    z = array_of(labels, "z")
    images, classes = z.shape
    size = z.chunks[0]
    specs = {"z": label_spec(images, classes, size), "corrected": label_spec(images, classes, size, "bool")}
    coordinates = {name: CopiedCoordinate(folder_of(fused)) for name in ("image", "class")}
    with new_group(pseudo, specs, coordinates, Answers.of(labels).attributes()) as written:
        for rows in tqdm(list(batched_slices(images, size)), desc="correct", unit="shard"):
            lifted, touched = correct_labels(read(z, rows), **rule.model_dump())
            written["z"][rows], written["corrected"][rows] = lifted, touched
    record.write_beside(pseudo)
