"""Stage override: a human's corrections laid over the labels that training starts from."""

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from cutsew.artefacts.layout import folder_of
from cutsew.artefacts.logits import label_spec
from cutsew.artefacts.manifest import read_manifest, slabs
from cutsew.artefacts.reading import array_of, labels_of, open_group, read
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import new_group
from cutsew.config.method import Score
from cutsew.data.overrides import lay_out, read_overrides
from cutsew.errors import UserError
from cutsew.numerics.override import LEFT
from cutsew.numerics.override import override as override_labels
from cutsew.pipeline import STAGES
from cutsew.stages.options import SettingsOption

log = logging.getLogger(__name__)


def override(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    labels: Annotated[Path, typer.Argument(help="pseudo.zarr, fused.zarr or logits.zarr, as train.labels says")],
    corrections: Annotated[Path, typer.Argument(help="CSV with the columns image, class and present (1 or 0)")],
    overridden: Annotated[Path, typer.Argument(help="overridden.zarr, written")],
    settings: SettingsOption,
) -> None:
    """Lay a human's corrections over the labels that training starts from."""
    record = Record("override", STAGES["override"].version, settings, [images, labels, corrections])
    epsilon = Score.model_validate(settings["score"]).epsilon
    group = open_group(labels)
    z = array_of(group, "z" if "z" in group else "zero_shot")
    ids, classes = labels_of(group, "image"), labels_of(group, "class")
    table = read_overrides(corrections)
    said = lay_out(table, ids, classes, corrections)
    _refuse_other_photos(images, ids, labels)
    size = z.chunks[0]
    shape = len(ids), len(classes), size
    specs = {"z": label_spec(*shape), "overridden": label_spec(*shape, "int8")}
    count = 0
    with new_group(overridden, specs, {"image": ids, "class": classes}) as written:
        for rows in tqdm(list(slabs(len(ids), size)), desc="override", unit="shard"):
            whole = range(*rows.indices(len(ids)))
            here = np.stack([said.get(row, np.full(len(classes), LEFT, np.int8)) for row in whole])
            written["z"][rows], changed = override_labels(read(z, rows), here, epsilon)
            written["overridden"][rows] = here
            count += changed
    record.facts = {"corrections": count, "photos": len(said), "by": sorted(set(table["by"]) - {""})}
    record.facts |= {"from": min(table["at"], default=""), "to": max(table["at"], default="")}
    record.write_beside(overridden)
    log.info("override: %d labels of %d photos are a human's", count, len(said))


def _refuse_other_photos(images: Path, ids: list[str], labels: Path) -> None:
    """Refuse labels of other photos than the manifest's."""
    if list(read_manifest(images)["id"]) != ids:
        raise UserError(f"{folder_of(labels)}: its photos are not those of images.parquet; run the workflow again")
