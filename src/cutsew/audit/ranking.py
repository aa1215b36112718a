"""The photos that each stage is surest and least sure of, for one class."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cutsew.artefacts.corrections import Corrections
from cutsew.artefacts.manifest import SPLITS
from cutsew.artefacts.outcome import FINAL
from cutsew.audit.run import Run
from cutsew.audit.stages import slices, stages_of
from cutsew.audit.values import BY_HAND, IN_WORDS, Content, answer
from cutsew.numerics.override import LEFT
from cutsew.numerics.score import sigmoid

LISTS = ("strongest", "weakest", "missed")
"""Labelled photos of highest and of lowest value, and those without the label of highest value."""


@dataclass
class Extremes:
    """The first `most` photos of a list, kept while photos stream by; of equal ones the earlier.

    Attributes:
        most: how many are kept.
        ids: of those kept.
        keys: by which they are sorted, ascending.

    """

    most: int
    ids: list[str] = field(default_factory=list)
    keys: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def add(self, ids: list[str], keys: npt.NDArray[np.float32]) -> None:
        """Take the photos of a slice into account."""
        together = np.concatenate([self.keys, keys])
        first = np.argsort(together, kind="stable")[: self.most]
        names = [*self.ids, *ids]
        self.ids, self.keys = [names[i] for i in first], together[first]


def class_audit(run: Run, name: str, top: int = 10) -> Content:
    """List the photos that each stage is surest and least sure of, with counts.

    Args:
        run: the run.
        name: of the class.
        top: photos in each list.

    Raises:
        UserError: no such class.

    """
    c = run.class_number(name)
    stages = [
        _stage(run, c, stage, before, split, top)
        for split in SPLITS
        if run.ids(split)
        for stage, before in stages_of(run, split)
    ]
    _add_truth(run, c, [photo for row in stages for kind in LISTS for photo in row[kind]])
    return {"run": str(run.folder), "class": name, "threshold": run.threshold, "stages": stages}


def _stage(run: Run, c: int, stage: str, before: str | None, split: str, top: int) -> Content:
    lists = {kind: Extremes(top) for kind in LISTS}
    counts = dict.fromkeys(("photos", "labelled", "added", "removed", "from_crops"), 0)
    compared = with_winner = False
    for part in slices(run, stage, before, run.ids(split)):
        z = part.z[:, c]
        known = np.isfinite(z)
        named = known & (sigmoid(z) >= run.threshold)
        counts["photos"] += int(known.sum())
        counts["labelled"] += int(named.sum())
        if part.before is not None:
            earlier = known & (sigmoid(part.before[:, c]) >= run.threshold)
            counts["added"] += int((named & ~earlier).sum())
            counts["removed"] += int((earlier & ~named).sum())
        if part.from_crop is not None:
            counts["from_crops"] += int((named & part.from_crop[:, c]).sum())
        compared, with_winner = part.before is not None, part.from_crop is not None
        for kind, chosen, sign in (("strongest", named, -1), ("weakest", named, 1), ("missed", known & ~named, -1)):
            lists[kind].add([part.ids[i] for i in np.flatnonzero(chosen)], np.float32(sign) * z[chosen])
    listed = {kind: _listed(found, 1 if kind == "weakest" else -1) for kind, found in lists.items()}
    if stage in (FINAL, "overridden") and run.corrections is not None:
        _add_by_hand(run.corrections, c, [photo for photos in listed.values() for photo in photos])
    told = counts | {name: None for name in ("added", "removed") if not compared}
    told |= {} if with_winner else {"from_crops": None}
    return {
        "stage": stage,
        "split": split,
        **told,
        **listed,
    }


def _listed(found: Extremes, sign: int) -> list[Content]:
    return [{"image": name, **(answer(sign * key) or {})} for name, key in zip(found.ids, found.keys, strict=True)]


def _add_by_hand(corrections: Corrections, c: int, photos: list[Content]) -> None:
    """Mark the photos of which a human said whether the class is in them."""
    for photo, said in zip(photos, corrections.said([photo["image"] for photo in photos])[:, c], strict=True):
        if said != LEFT:
            photo["by_hand"] = BY_HAND[int(said)]


def _add_truth(run: Run, c: int, photos: list[Content]) -> None:
    """Say of each photo whether the class is truly in it, where that is known."""
    ids = list(dict.fromkeys(photo["image"] for photo in photos))
    truth = run.truth(ids) if ids else None
    if truth is None:
        return
    said = dict(zip(ids, truth[:, c].tolist(), strict=True))
    for photo in photos:
        photo["truth"] = IN_WORDS[said[photo["image"]]]
