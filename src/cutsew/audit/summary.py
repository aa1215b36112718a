"""What each stage did to the labels: per run, and per class.

- Numbers of an audit as plain JSON values.
- The photos of highest and lowest confidence per stage, for one class.
- What each stage of a run did to the labels, and what looks wrong with them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.audit.run import Run, Slice, slices, stages_of
from cutsew.method.correct import ABSENT, LEFT, PRESENT
from cutsew.method.score import sigmoid
from cutsew.storage.label_corrections import Corrections, in_words
from cutsew.storage.manifest import SPLITS
from cutsew.storage.predictions import FINAL
from cutsew.storage.tables import read_csv

Content = dict[str, Any]

IN_WORDS = {1: "present", 0: "absent", -1: "not counted"}
"""Text for ground-truth labels."""

BY_HAND = {LEFT: None, PRESENT: "present", ABSENT: "absent"}
"""What a human said of a label."""


def answer(z: Any) -> Content | None:  # noqa: ANN401  # any real number of numpy's or Python's
    """Return a logit with its probability; None where there is none (a photo that the teacher did not score)."""
    if not math.isfinite(z):
        return None
    return {"logit": float(z), "probability": float(sigmoid(np.array(z, dtype=np.float64)))}


def finite(value: Any) -> float | None:  # noqa: ANN401
    """Return a number, None where it is not one."""
    return float(value) if math.isfinite(value) else None


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
    """List the most and least confident photos of each stage, with counts.

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


MEASURED = ("mAP", "CF1", "OF1")
"""Columns of metrics.csv that are reported; they depend on ground truth."""

NAMED_AT_MOST = 5
"""Classes that a warning names."""


@dataclass
class Tally:
    """Counts of one stage over one split.

    Attributes:
        labelled: (C,) photos that each class is named in.
        lowest, highest: (C,) probabilities of each class.
        photos: photos with finite labels.
        unknown: photos without.
        confidence: sum of the photos' highest probability.
        none, every, flat: photos that no class, that every class is named in, whose classes all have one probability.
        added, removed: labels that the stage before did not have, and that it had.
        from_crops: labels that a crop gave.
        compared, with_winner: whether there is a stage before, and a winning view.

    """

    labelled: npt.NDArray[np.int64]
    lowest: npt.NDArray[np.float64]
    highest: npt.NDArray[np.float64]
    photos: int = 0
    unknown: int = 0
    confidence: float = 0.0
    none: int = 0
    every: int = 0
    flat: int = 0
    added: int = 0
    removed: int = 0
    from_crops: int = 0
    compared: bool = False
    with_winner: bool = False

    @classmethod
    def empty(cls, classes: int) -> "Tally":
        """Return a tally of no photos."""
        return cls(np.zeros(classes, np.int64), np.full(classes, np.inf), np.full(classes, -np.inf))

    def add(self, part: Slice, threshold: float) -> None:
        """Count the photos of a slice."""
        known = np.isfinite(part.z).all(axis=1)
        p = sigmoid(part.z[known])
        named = p >= threshold
        self.unknown += int((~known).sum())
        if not len(p):
            return
        self.photos += len(p)
        self.labelled += named.sum(axis=0)
        self.lowest, self.highest = np.minimum(self.lowest, p.min(axis=0)), np.maximum(self.highest, p.max(axis=0))
        self.confidence += float(p.max(axis=1).sum(dtype=np.float64))
        self.none += int((~named).all(axis=1).sum())
        self.every += int(named.all(axis=1).sum())
        self.flat += int((p.min(axis=1) == p.max(axis=1)).sum())
        if part.before is not None:
            earlier = sigmoid(part.before[known]) >= threshold
            self.added += int((named & ~earlier).sum())
            self.removed += int((earlier & ~named).sum())
        if part.from_crop is not None:
            self.from_crops += int((named & part.from_crop[known]).sum())
        self.compared, self.with_winner = part.before is not None, part.from_crop is not None


def summary(run: Run) -> Content:
    """Summarize what each stage did to the labels, and warn of degenerate ones."""
    rows: list[Content] = []
    warnings = [f"{path.name}: a record names it and it is not there; `cutsew verify` says more" for path in run.lost()]
    measured = _measured(run)
    for split in SPLITS:
        ids = run.ids(split)
        for stage, before in stages_of(run, split) if ids else []:
            tally = Tally.empty(len(run.classes))
            for part in slices(run, stage, before, ids):
                tally.add(part, run.threshold)
            rows.append(_row(stage, split, tally) | measured.get((stage, split), {}))
            warnings += [f"{stage}, {split}: {text}" for text in _degenerate(tally, run.classes)]
    return {
        "run": str(run.folder),
        "threshold": run.threshold,
        "classes": len(run.classes),
        "stages": rows,
        "warnings": warnings,
        "corrections": _corrections(run),
        "elsewhere": {name: str(path) for name, path in run.elsewhere().items()},
    }


def _corrections(run: Run) -> str | None:
    """Say how many labels a human corrected; None for none."""
    if run.corrections is None:
        return None
    return in_words(*run.corrections.counts, student="student" in run.outcomes or "refined" in run.outcomes)


def _row(stage: str, split: str, tally: Tally) -> Content:
    photos = max(tally.photos, 1)
    total = int(tally.labelled.sum())
    return {
        "stage": stage,
        "split": split,
        "photos": tally.photos,
        **dict.fromkeys(MEASURED),
        "labels": total,
        "labels_per_photo": total / photos,
        "confidence": tally.confidence / photos,
        "added": tally.added if tally.compared else None,
        "removed": tally.removed if tally.compared else None,
        "from_crops": tally.from_crops if tally.with_winner else None,
        "without_labels": tally.none,
    }


def _measured(run: Run) -> dict[tuple[str, str], Content]:
    """Read what evaluate measured; nothing where it has not run."""
    path = run.path("metrics.csv")
    if path is None:
        return {}
    table = read_csv(path, ["stage", "split"])
    columns = [name for name in MEASURED if name in table.columns]
    return {
        (str(row["stage"]), str(row["split"])): {name: finite(row[name]) for name in columns}
        for row in table.to_dict("records")
    }


def _degenerate(tally: Tally, classes: list[str]) -> Iterator[str]:
    """Say what no sound labels look like."""
    if tally.unknown:
        yield f"{tally.unknown} of {tally.photos + tally.unknown} photos have no finite labels"
    if not tally.photos:
        return
    if not tally.labelled.any():
        yield "not one photo has a label"
    elif len(classes) > 1:
        if (tally.labelled == 0).any():
            yield f"{_names(tally.labelled == 0, classes)} in no photo"
        if tally.photos > 1 and (tally.labelled == tally.photos).any():
            yield f"{_names(tally.labelled == tally.photos, classes)} in every photo"
        if tally.every:
            yield f"{tally.every} of {tally.photos} photos have every class as a label"
        if tally.flat:
            yield f"{tally.flat} of {tally.photos} photos have one and the same probability for all classes"
    if tally.photos > 1 and (tally.lowest == tally.highest).any():
        yield f"{_names(tally.lowest == tally.highest, classes)} with one and the same probability in all photos"


def _names(chosen: npt.NDArray[np.bool_], classes: list[str]) -> str:
    names = [classes[c] for c in np.flatnonzero(chosen)]
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return f"{len(names)} of {len(classes)} classes ({', '.join(names[:NAMED_AT_MOST])}{more})"
