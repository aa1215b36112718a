"""Stage fuse: the answers of all views become one (Eq. 7), or TagCLIP's two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from cutsew.activation import NO_LIKELIEST
from cutsew.artefacts.coordinates import Same
from cutsew.artefacts.layout import Spec, folder_of
from cutsew.artefacts.logits import Answers, label_spec
from cutsew.artefacts.manifest import slabs
from cutsew.artefacts.reading import array_of, open_group, read, read_rows
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import new_group
from cutsew.config.method import Fuse, Score
from cutsew.errors import UserError
from cutsew.fusing import fuse_by
from cutsew.numerics.fuse import fuse_tagclip
from cutsew.numerics.soften import found_softening
from cutsew.pipeline import STAGES
from cutsew.stages.options import SettingsOption

if TYPE_CHECKING:
    import zarr

SAMPLE = 16384
"""Photos from which the softening is found."""

LABELS = 65536
"""Names of photos that are compared at a time."""

CERTAINTY = 0.6
"""Mean probability of a whole photo's likeliest class at the softening that is found."""


def fuse(
    logits: Annotated[Path, typer.Argument(help="logits.zarr")],
    fused: Annotated[Path, typer.Argument(help="fused.zarr, written")],
    settings: SettingsOption,
    tagclip: Annotated[Path | None, typer.Option(help="tagclip.zarr, with score.rule tagclip.")] = None,
) -> None:
    """Fuse the answers of all views (Eq. 7), or TagCLIP's two."""
    given = [logits] if tagclip is None else [logits, tagclip]
    record = Record("fuse", STAGES["fuse"].version, settings, given)
    scoring = Score.model_validate(settings["score"])
    if scoring.rule == "tagclip":
        _fuse_tagclip(logits, tagclip, fused, scoring)
    else:
        record.facts = _fuse_views(logits, fused, Fuse.model_validate(settings["fuse"]), scoring.epsilon)
    record.write_beside(fused)


def _fuse_tagclip(logits: Path, tagclip: Path | None, fused: Path, scoring: Score) -> None:
    """Fuse the best patch's answer with that of the second look."""
    if tagclip is None:
        raise UserError("score.rule: tagclip is fused from its own scores; name them with --tagclip")
    scored, known = open_group(tagclip), open_group(logits)
    if not all(_alike(array_of(scored, name), array_of(known, name)) for name in ("image", "class")):
        raise UserError(f"{tagclip}: its photos or classes are not those of {logits}; run the workflow again")
    local, again = array_of(scored, "local"), array_of(scored, "again")
    (images, classes), size = local.shape, local.chunks[0]
    coordinates = {name: Same(folder_of(logits)) for name in ("image", "class")}
    with new_group(fused, _specs(images, classes, size), coordinates) as written:
        for rows in tqdm(list(slabs(images, size)), desc="fuse", unit="shard"):
            answers = read(local, rows), read(again, rows)
            z, winner = fuse_tagclip(*answers, scoring.tagclip.weight, scoring.epsilon)
            written["z"][rows], written["winner"][rows] = z, winner


def _alike(ours: "zarr.Array[Any]", theirs: "zarr.Array[Any]") -> bool:
    """Tell whether two coordinates have the same labels, a slice at a time."""
    slices = slabs(ours.shape[0], LABELS)
    return ours.shape == theirs.shape and all(np.array_equal(read(ours, rows), read(theirs, rows)) for rows in slices)


def _specs(images: int, classes: int, size: int) -> dict[str, Spec]:
    return {"z": label_spec(images, classes, size), "winner": label_spec(images, classes, size, "int16")}


def _fuse_views(logits: Path, fused: Path, rule: Fuse, epsilon: float) -> dict[str, Any]:
    """Fuse whole photo and crops; return facts for the record."""
    scored = open_group(logits)
    zero_shot, crops = array_of(scored, "zero_shot"), array_of(scored, "crops")
    if (rule.passes or 0) > crops.shape[0]:
        raise UserError(f"fuse.passes: {rule.passes} is more than the {crops.shape[0]} passes of {logits}; lower it")
    images, classes = zero_shot.shape
    size = zero_shot.chunks[0]
    coordinates = {name: Same(folder_of(logits)) for name in ("image", "class")}
    answers = Answers.of(scored)
    factor = _factor(rule, zero_shot, answers) if rule.rule == "soft" else 1.0
    with new_group(fused, _specs(images, classes, size), coordinates, answers.attributes()) as written:
        for rows in tqdm(list(slabs(images, size)), desc="fuse", unit="shard"):
            whole, cut = read(zero_shot, rows), read(crops, (slice(rule.passes), rows))
            written["z"][rows], written["winner"][rows] = fuse_by(rule, whole, cut, factor, epsilon, answers)
    return {"soften": factor} if rule.rule == "soft" else {}


def _factor(rule: Fuse, zero_shot: "zarr.Array[Any]", answers: Answers) -> float:
    """Return the softening, found from photos spread evenly over all where it is to be found."""
    if rule.soften != "auto":
        return rule.soften
    if answers.activation == "sigmoid":
        raise UserError(NO_LIKELIEST)
    photos = zero_shot.shape[0]
    rows = np.unique(np.linspace(0, photos - 1, min(photos, SAMPLE)).round().astype(int))
    return found_softening(read_rows(zero_shot, rows), CERTAINTY, rest=answers.background > 0)
