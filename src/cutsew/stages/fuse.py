"""Stage fuse: the answers of all views become one (Eq. 7), or TagCLIP's two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from tqdm import tqdm

from cutsew.config.method import Fuse, SoftFusionConfig, TagClipScoringConfig, parse_fuse, parse_score
from cutsew.errors import UserError
from cutsew.method.fuse import Extremes, fuse_tagclip
from cutsew.method.soften import fit_temperature
from cutsew.models.activation import NO_LIKELIEST
from cutsew.pipeline.fusing import FOUND, fuse_by_rule
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import SettingsOption
from cutsew.storage.manifest import batched_slices
from cutsew.storage.zarr_layout import Answers, ArraySpec, folder_of, label_spec
from cutsew.storage.zarr_reader import array_of, open_group, read, read_crops, read_rows
from cutsew.storage.zarr_writer import CopiedCoordinate, new_group

if TYPE_CHECKING:
    import zarr

SAMPLE = 16384
"""Images from which the softening, or the shift of rule standard, is found."""

LABELS = 65536
"""Names of images that are compared at a time."""

CERTAINTY = 0.6
"""Mean probability of a whole image's likeliest class at the softening that is found."""


def fuse(
    logits: Annotated[Path, typer.Argument(help="logits.zarr")],
    fused: Annotated[Path, typer.Argument(help="fused.zarr, written")],
    settings: SettingsOption,
    tagclip: Annotated[Path | None, typer.Option(help="tagclip.zarr, with score.rule tagclip.")] = None,
) -> None:
    """Fuse the logits of all views (Eq. 7), or TagCLIP's two scores."""
    inputs = [logits] if tagclip is None else [logits, tagclip]
    record = Record("fuse", STAGES["fuse"].version, settings, inputs)
    scoring = parse_score(settings["score"])
    if scoring.rule == "tagclip":
        _fuse_tagclip(logits, tagclip, fused, scoring)
    else:
        record.facts = _fuse_views(logits, fused, parse_fuse(settings["fuse"]), scoring.epsilon)
    record.write_beside(fused)


def _fuse_tagclip(logits: Path, tagclip: Path | None, fused: Path, scoring: TagClipScoringConfig) -> None:
    """Fuse the best patch's answer with that of the second look."""
    if tagclip is None:
        raise UserError("score.rule: tagclip is fused from its own scores; name them with --tagclip")
    scored, source = open_group(tagclip), open_group(logits)
    if not all(_alike(array_of(scored, name), array_of(source, name)) for name in ("image", "class")):
        raise UserError(f"{tagclip}: its images or classes are not those of {logits}; run the workflow again")
    local, again = array_of(scored, "local_score"), array_of(scored, "global_score")
    (images, classes), size = local.shape, local.chunks[0]
    coordinates = {name: CopiedCoordinate(folder_of(logits)) for name in ("image", "class")}
    with new_group(fused, _specs(images, classes, size), coordinates) as written:
        for rows in tqdm(list(batched_slices(images, size)), desc="fuse", unit="shard"):
            answers = read(local, rows), read(again, rows)
            z, winner = fuse_tagclip(*answers, scoring.tagclip.weight, scoring.epsilon)
            written["z"][rows], written["winner"][rows] = z, winner


def _alike(ours: "zarr.Array[Any]", theirs: "zarr.Array[Any]") -> bool:
    """Check whether two coordinates have the same labels, a slice at a time."""
    slices = batched_slices(ours.shape[0], LABELS)
    return ours.shape == theirs.shape and all(np.array_equal(read(ours, rows), read(theirs, rows)) for rows in slices)


def _specs(images: int, classes: int, size: int) -> dict[str, ArraySpec]:
    return {"z": label_spec(images, classes, size), "winner": label_spec(images, classes, size, "int16")}


def _fuse_views(logits: Path, fused: Path, rule: Fuse, epsilon: float) -> dict[str, Any]:
    """Fuse whole image and crops; return facts for the record."""
    scored = open_group(logits)
    zero_shot, passes = array_of(scored, "zero_shot"), array_of(scored, "pass").shape[0]
    if (rule.passes or 0) > passes:
        raise UserError(f"fuse.passes: {rule.passes} is more than the {passes} passes of {logits}; lower it")
    images, classes = zero_shot.shape
    size = zero_shot.chunks[0]
    coordinates = {name: CopiedCoordinate(folder_of(logits)) for name in ("image", "class")}
    answers = Answers.of(scored)
    temperature = _softening(rule, zero_shot, answers) if rule.rule == "soft" else 0.0
    seen = _Seen(images) if rule.rule == "standard" else None
    with new_group(fused, _specs(images, classes, size), coordinates, answers.attributes()) as written:
        for rows in tqdm(list(batched_slices(images, size)), desc="fuse", unit="shard"):
            whole, cut = read(zero_shot, rows), read_crops(scored, rows, rule.passes)
            z, winner = fuse_by_rule(rule, whole, cut, temperature, epsilon, answers)
            written["z"][rows], written["winner"][rows] = z, winner
            if seen is not None and not isinstance(cut, Extremes):
                seen.add(rows, z, np.maximum(whole, cut.max(axis=0, initial=-np.inf)))
        if seen is None:
            return {FOUND[rule.rule]: temperature} if rule.rule in FOUND else {}
        from cutsew.method.label_count import standard_shift  # scikit-learn, for this rule alone

        count, shift = standard_shift(seen.fused, seen.labels, sum_to_one=answers.sum_to_one)
        for rows in batched_slices(images, size):
            written["z"][rows] = read(written["z"], rows) - np.float32(shift)
        return {"count": count, FOUND[rule.rule]: shift}


class _Seen:
    """Keeps the fused values of images that are spread evenly over all and have scores."""

    def __init__(self, images: int) -> None:
        self._rows = _sample(images)
        self._kept: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []

    def add(self, rows: slice, fused: npt.NDArray[np.float32], labels: npt.NDArray[np.float32]) -> None:
        """Keep the rows that were chosen of a slab."""
        chosen = self._rows[(self._rows >= rows.start) & (self._rows < rows.stop)] - rows.start
        chosen = chosen[np.isfinite(fused[chosen]).all(axis=1)]
        self._kept.append((fused[chosen], labels[chosen]))

    @property
    def fused(self) -> npt.NDArray[np.float32]:
        """(n, C) values of rule standard, not yet shifted."""
        return np.concatenate([fused for fused, _ in self._kept])

    @property
    def labels(self) -> npt.NDArray[np.float32]:
        """(n, C) logits of the plain maximum."""
        return np.concatenate([labels for _, labels in self._kept])


def _sample(images: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, images - 1, min(images, SAMPLE)).round().astype(np.int64))


def _softening(rule: SoftFusionConfig, zero_shot: "zarr.Array[Any]", answers: Answers) -> float:
    """Return the softening, found from images spread evenly over all where it is to be found."""
    if rule.soften != "auto":
        return rule.soften
    if answers.activation == "sigmoid":
        raise UserError(NO_LIKELIEST)
    z = read_rows(zero_shot, _sample(zero_shot.shape[0]))
    return fit_temperature(z[np.isfinite(z).all(axis=1)], CERTAINTY, rest=answers.background > 0)
