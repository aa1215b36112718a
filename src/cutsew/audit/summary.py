"""What each stage did to the labels: per run, and per class.

- Numbers of an audit as plain JSON values.
- The images of highest and lowest confidence per stage, for one class.
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
from cutsew.method.thresholds import named
from cutsew.storage.label_corrections import Corrections, in_words
from cutsew.storage.manifest import SPLITS
from cutsew.storage.predictions import FINAL
from cutsew.storage.tables import read_csv

JsonDict = dict[str, Any]
Thresholds = npt.NDArray[np.float64]

TRUTH_TEXT = {1: "present", 0: "absent", -1: "not counted"}
"""Text for ground-truth labels."""

BY_HAND = {LEFT: None, PRESENT: "present", ABSENT: "absent"}
"""What a human said of a label."""


def format_score(z: Any) -> JsonDict | None:  # noqa: ANN401  # any real number of numpy's or Python's
    """Return a logit with its probability; None where there is none (an image that the teacher did not score)."""
    if not math.isfinite(z):
        return None
    return {"logit": float(z), "probability": float(sigmoid(np.array(z, dtype=np.float64)))}


def finite(value: Any) -> float | None:  # noqa: ANN401
    """Return a number, None where it is not one."""
    return float(value) if math.isfinite(value) else None


LISTS = ("strongest", "weakest", "missed")
"""Labeled images of highest and of lowest value, and those without the label of highest value."""


@dataclass
class Extremes:
    """The first `most` images of a list, kept while images stream by; of equal ones the earlier.

    Attributes:
        most: how many are kept.
        ids: of those kept.
        keys: by which they are sorted, ascending.

    """

    most: int
    ids: list[str] = field(default_factory=list)
    keys: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def add(self, ids: list[str], keys: npt.NDArray[np.float32]) -> None:
        """Take the images of a slice into account."""
        together = np.concatenate([self.keys, keys])
        first = np.argsort(together, kind="stable")[: self.most]
        names = [*self.ids, *ids]
        self.ids, self.keys = [names[i] for i in first], together[first]


def class_audit(run: Run, name: str, top: int = 10) -> JsonDict:
    """List the most and least confident images of each stage, with counts.

    Args:
        run: the run.
        name: of the class.
        top: images in each list.

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
    _add_truth(run, c, [image for row in stages for kind in LISTS for image in row[kind]])
    return {"run": str(run.folder), "class": name, "named_by": run.thresholds.in_words(), "stages": stages}


def _stage(run: Run, c: int, stage: str, before: str | None, split: str, top: int) -> JsonDict:
    lists = {kind: Extremes(top) for kind in LISTS}
    counts = dict.fromkeys(("images", "labeled", "added", "removed", "from_crops"), 0)
    compared = with_winner = False
    limit, limit_before = (run.thresholds_of(name or stage, split)[c] for name in (stage, before))
    for part in slices(run, stage, before, run.ids(split)):
        z = part.z[:, c]
        known = np.isfinite(z)
        labeled = known & named(z, limit)
        counts["images"] += int(known.sum())
        counts["labeled"] += int(labeled.sum())
        if part.before is not None:
            earlier = known & named(part.before[:, c], limit_before)
            counts["added"] += int((labeled & ~earlier).sum())
            counts["removed"] += int((earlier & ~labeled).sum())
        if part.from_crop is not None:
            counts["from_crops"] += int((labeled & part.from_crop[:, c]).sum())
        compared, with_winner = part.before is not None, part.from_crop is not None
        for kind, chosen, sign in (
            ("strongest", labeled, -1),
            ("weakest", labeled, 1),
            ("missed", known & ~labeled, -1),
        ):
            lists[kind].add([part.ids[i] for i in np.flatnonzero(chosen)], np.float32(sign) * z[chosen])
    listed = {kind: _listed(examples, 1 if kind == "weakest" else -1) for kind, examples in lists.items()}
    if stage in (FINAL, "overridden") and run.corrections is not None:
        _add_by_hand(run.corrections, c, [image for images in listed.values() for image in images])
    counted = counts | {name: None for name in ("added", "removed") if not compared}
    counted |= {} if with_winner else {"from_crops": None}
    return {
        "stage": stage,
        "split": split,
        **counted,
        **listed,
    }


def _listed(extremes: Extremes, sign: int) -> list[JsonDict]:
    return [
        {"image": name, **(format_score(sign * key) or {})}
        for name, key in zip(extremes.ids, extremes.keys, strict=True)
    ]


def _add_by_hand(corrections: Corrections, c: int, images: list[JsonDict]) -> None:
    """Mark the images of which a human said whether the class is in them."""
    for image, corrected in zip(images, corrections.said([image["image"] for image in images])[:, c], strict=True):
        if corrected != LEFT:
            image["by_hand"] = BY_HAND[int(corrected)]


def _add_truth(run: Run, c: int, images: list[JsonDict]) -> None:
    """Say of each image whether the class is truly in it, where that is known."""
    ids = list(dict.fromkeys(image["image"] for image in images))
    truth = run.truth(ids) if ids else None
    if truth is None:
        return
    labels = dict(zip(ids, truth[:, c].tolist(), strict=True))
    for image in images:
        image["truth"] = TRUTH_TEXT[labels[image["image"]]]


MEASURED = ("mAP", "CF1", "OF1")
"""Columns of metrics.csv that are reported; they depend on ground truth."""

NAMED_AT_MOST = 5
"""Classes that a warning names."""


@dataclass
class Tally:
    """Counts of one stage over one split.

    Attributes:
        labeled: (C,) images that each class is named in.
        lowest, highest: (C,) probabilities of each class.
        images: images with finite labels.
        unknown: images without.
        confidence: sum of the images' highest probability.
        none, every, flat: images that no class, that every class is named in, whose classes all have one probability.
        added, removed: labels that the stage before did not have, and that it had.
        from_crops: labels that a crop gave.
        compared, with_winner: whether there is a stage before, and a winning view.

    """

    labeled: npt.NDArray[np.int64]
    lowest: npt.NDArray[np.float64]
    highest: npt.NDArray[np.float64]
    images: int = 0
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
        """Return a tally of no images."""
        return cls(np.zeros(classes, np.int64), np.full(classes, np.inf), np.full(classes, -np.inf))

    def add(self, part: Slice, thresholds: Thresholds, thresholds_before: Thresholds) -> None:
        """Count the images of a slice; (C,) thresholds of the stage and of the one before."""
        known = np.isfinite(part.z).all(axis=1)
        p, labeled = sigmoid(part.z[known]), named(part.z[known], thresholds)
        self.unknown += int((~known).sum())
        if not len(p):
            return
        self.images += len(p)
        self.labeled += labeled.sum(axis=0)
        self.lowest, self.highest = np.minimum(self.lowest, p.min(axis=0)), np.maximum(self.highest, p.max(axis=0))
        self.confidence += float(p.max(axis=1).sum(dtype=np.float64))
        self.none += int((~labeled).all(axis=1).sum())
        self.every += int(labeled.all(axis=1).sum())
        self.flat += int((p.min(axis=1) == p.max(axis=1)).sum())
        if part.before is not None:
            earlier = named(part.before[known], thresholds_before)
            self.added += int((labeled & ~earlier).sum())
            self.removed += int((earlier & ~labeled).sum())
        if part.from_crop is not None:
            self.from_crops += int((labeled & part.from_crop[known]).sum())
        self.compared, self.with_winner = part.before is not None, part.from_crop is not None


def summary(run: Run) -> JsonDict:
    """Summarize what each stage did to the labels, and warn of degenerate ones."""
    rows: list[JsonDict] = []
    warnings = [f"{path.name}: a record names it and it is not there; `cutsew verify` says more" for path in run.lost()]
    measured = _measured(run)
    for split in SPLITS:
        ids = run.ids(split)
        for stage, before in stages_of(run, split) if ids else []:
            tally = Tally.empty(len(run.classes))
            limits = tuple(run.thresholds_of(name or stage, split) for name in (stage, before))
            for part in slices(run, stage, before, ids):
                tally.add(part, *limits)
            rows.append(_row(stage, split, tally) | measured.get((stage, split), {}))
            warnings += [f"{stage}, {split}: {text}" for text in _degenerate(tally, run.classes)]
    return {
        "run": str(run.folder),
        "named_by": run.thresholds.in_words(),
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


def _row(stage: str, split: str, tally: Tally) -> JsonDict:
    images = max(tally.images, 1)
    total = int(tally.labeled.sum())
    return {
        "stage": stage,
        "split": split,
        "images": tally.images,
        **dict.fromkeys(MEASURED),
        "labels": total,
        "labels_per_image": total / images,
        "confidence": tally.confidence / images,
        "added": tally.added if tally.compared else None,
        "removed": tally.removed if tally.compared else None,
        "from_crops": tally.from_crops if tally.with_winner else None,
        "without_labels": tally.none,
    }


def _measured(run: Run) -> dict[tuple[str, str], JsonDict]:
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
        yield f"{tally.unknown} of {tally.images + tally.unknown} images have no finite labels"
    if not tally.images:
        return
    if not tally.labeled.any():
        yield "not one image has a label"
    elif len(classes) > 1:
        if (tally.labeled == 0).any():
            yield f"{_names(tally.labeled == 0, classes)} in no image"
        if tally.images > 1 and (tally.labeled == tally.images).any():
            yield f"{_names(tally.labeled == tally.images, classes)} in every image"
        if tally.every:
            yield f"{tally.every} of {tally.images} images have every class as a label"
        if tally.flat:
            yield f"{tally.flat} of {tally.images} images have one and the same probability for all classes"
    if tally.images > 1 and (tally.lowest == tally.highest).any():
        yield f"{_names(tally.lowest == tally.highest, classes)} with one and the same probability in all images"


def _names(chosen: npt.NDArray[np.bool_], classes: list[str]) -> str:
    names = [classes[c] for c in np.flatnonzero(chosen)]
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return f"{len(names)} of {len(classes)} classes ({', '.join(names[:NAMED_AT_MOST])}{more})"
