"""Stage fuse: the answers of all views become one (Eq. 7)."""

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from cutsew.artefacts.logits import label_spec
from cutsew.artefacts.manifest import slabs
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import array_of, labels_of, new_group, open_group, read
from cutsew.config.method import Fuse, Score
from cutsew.errors import UserError
from cutsew.numerics.fuse import fuse as fuse_views
from cutsew.numerics.fuse import fuse_gated
from cutsew.plan import STAGES
from cutsew.stages.options import SettingsOption


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
    coordinates = {name: labels_of(scored, name) for name in ("image", "class")}
    with new_group(fused, specs, coordinates) as written:
        for rows in tqdm(list(slabs(images, size)), desc="fuse", unit="shard"):
            whole, cut = read(zero_shot, rows), read(crops, (slice(rule.passes), rows))
            if rule.rule == "gated":
                z, winner = fuse_gated(whole, cut, rule.gate)
            else:
                z, winner = fuse_views(whole, cut, rule.alpha, rule.space, epsilon)
            written["z"][rows], written["winner"][rows] = z, winner
    record.write_beside(fused)
