"""What each stage of a run did to the labels, and what looks wrong with them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cutsew.artefacts.corrections import in_words
from cutsew.artefacts.manifest import SPLITS
from cutsew.artefacts.tables import read_csv
from cutsew.audit.run import Run
from cutsew.audit.stages import Slice, slices, stages_of
from cutsew.audit.values import Content, finite
from cutsew.numerics.score import sigmoid

MEASURED = ("mAP", "CF1", "OF1")
"""Columns of metrics.csv that are told; they rest on truth."""

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
    """Tell what each stage did to the labels, and warn of degenerate ones."""
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
