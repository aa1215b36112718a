"""Stage fuse: the answers of all views become one (Eq. 7)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from cutsew.artefacts.coordinates import Same
from cutsew.artefacts.logits import label_spec
from cutsew.artefacts.manifest import slabs
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import array_of, folder_of, new_group, open_group, read, read_rows
from cutsew.config.method import Fuse, Score
from cutsew.errors import UserError
from cutsew.fusing import fuse_by
from cutsew.numerics.soften import found_softening
from cutsew.plan import STAGES
from cutsew.stages.options import SettingsOption

if TYPE_CHECKING:
    import zarr

SAMPLE = 16384
"""Photos from which the softening is found."""

CERTAINTY = 0.6
"""Mean probability of a whole photo's likeliest class at the softening that is found."""


def fuse(
    logits: Annotated[Path, typer.Argument(help="logits.zarr")],
    fused: Annotated[Path, typer.Argument(help="fused.zarr, written")],
    settings: SettingsOption,
) -> None:
    """Fuse the answers of all views (Eq. 7)."""
    record = Record("fuse", STAGES["fuse"].version, settings, [logits])
    rule, epsilon = Fuse.model_validate(settings["fuse"]), Score.model_validate(settings["score"]).epsilon
    scored = open_group(logits)
    zero_shot, crops = array_of(scored, "zero_shot"), array_of(scored, "crops")
    if (rule.passes or 0) > crops.shape[0]:
        raise UserError(f"fuse.passes: {rule.passes} is more than the {crops.shape[0]} passes of {logits}; lower it")
    images, classes = zero_shot.shape
    size = zero_shot.chunks[0]
    specs = {"z": label_spec(images, classes, size), "winner": label_spec(images, classes, size, "int16")}
    coordinates = {name: Same(folder_of(logits)) for name in ("image", "class")}
    factor = _factor(rule, zero_shot) if rule.rule == "soft" else 1.0
    with new_group(fused, specs, coordinates) as written:
        for rows in tqdm(list(slabs(images, size)), desc="fuse", unit="shard"):
            whole, cut = read(zero_shot, rows), read(crops, (slice(rule.passes), rows))
            written["z"][rows], written["winner"][rows] = fuse_by(rule, whole, cut, factor, epsilon)
    if rule.rule == "soft":
        record.facts = {"soften": factor}
    record.write_beside(fused)


def _factor(rule: Fuse, zero_shot: "zarr.Array[Any]") -> float:
    """Return the softening, found from photos spread evenly over all where it is to be found."""
    if rule.soften != "auto":
        return rule.soften
    photos = zero_shot.shape[0]
    rows = np.unique(np.linspace(0, photos - 1, min(photos, SAMPLE)).round().astype(int))
    return found_softening(read_rows(zero_shot, rows), CERTAINTY)
