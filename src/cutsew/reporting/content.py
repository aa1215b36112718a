"""Everything that the page shows about a run, gathered from its artefacts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cutsew.reporting.cards import Card, Crops, gather
from cutsew.reporting.charts import Ends, calibration, confidence, labels_per_photo, per_class, training, values
from cutsew.reporting.heatmaps import Maps, activation_maps, cooccurrence, features
from cutsew.reporting.run_data import Run, Tally, tally, tally_truth
from cutsew.reporting.selection import Changes, Ranked, changes, easiest_and_hardest, worth_looking_at
from cutsew.reporting.style import Chart


@dataclass(frozen=True)
class Tables:
    """What evaluate wrote, and the history of the training, where there was one."""

    metrics: pd.DataFrame
    per_class: pd.DataFrame
    confidence: pd.DataFrame
    agreement: pd.DataFrame
    rules: pd.DataFrame
    history: pd.DataFrame | None


@dataclass
class Findings:
    """What the page shows besides its tables.

    Attributes:
        charts: in the order of the page.
        easiest: classes that the whole photo shows best.
        hardest: classes that it shows worst.
        by_truth: whether a photo's classes are the true ones there, not the last stage's.
        maps: where teacher and student look.
        cards: of the gallery.

    """

    charts: list[Chart] = field(default_factory=list)
    easiest: list[Ranked] = field(default_factory=list)
    hardest: list[Ranked] = field(default_factory=list)
    by_truth: bool = False
    maps: list[Maps] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)


Counted = dict[str, dict[str, Tally]]


def find(run: Run, tables: Tables, crops: Crops, maps: Path | None, done: Callable[[], object]) -> Findings:
    """Gather everything.

    Args:
        run: the run.
        tables: what evaluate wrote.
        crops: which crop won.
        maps: maps.zarr, None where nobody looked where the models look.
        done: called after each of PARTS parts.

    """
    found = Findings()
    with _part(done):
        counted = {split: _count(run, split, stages) for split, stages in run.stages.items()}
    with _part(done):
        changed = {split: _change(run, split) for split in run.stages}
        found.by_truth = bool((run.truth(list(run.photos(run.main)["id"])) == 1).any())
    with _part(done):
        found.cards = gallery(run, crops, counted, changed)
    with _part(done):
        decided = _change(run, run.main, by_truth=True) if found.by_truth else changed[run.main]
        if len(run.stages[run.main]) > 1:
            found.easiest, found.hardest = easiest_and_hardest(run, run.main, decided)
    with _part(done):
        found.charts = _charts(run, tables, counted, decided)
    with _part(done):
        if maps is not None:
            found.maps = activation_maps(maps, run)
            drawn = features(maps, run)
            found.charts += [drawn] if drawn else []
    return found


PARTS = 6
"""Times that `find` calls `done`."""


@contextmanager
def _part(done: Callable[[], object]) -> Iterator[None]:
    yield
    done()


def gallery(run: Run, crops: Crops, counted: Counted, changed: dict[str, Changes]) -> list[Card]:
    """Choose photos worth looking at, those of the main split first, and gather what is said about them."""
    about: dict[str, dict[str, object]] = {}
    for split in sorted(run.stages, key=lambda split: split != run.main):
        stages, photos, change = run.stages[split], run.photos(split), changed[split]
        named = [np.diag(counted[split][stage].labels.together) for stage in (stages[0], stages[-1])]
        moved = np.abs(named[1] - named[0])
        corrected = np.flatnonzero(photos["id"].isin(run.corrections.photos if run.corrections else [])).tolist()
        chosen = worth_looking_at(change, list(photos["digest"]), moved, 1 / len(run.stages), corrected)
        for i, why in chosen.items():
            figures = (("gained", change.gained[i]), ("lost", change.lost[i]), ("bits", round(change.bits[i], 2)))
            about[str(photos["id"][i])] = {
                "why": tuple(why),
                "figures": tuple((name, float(value)) for name, value in figures),
            }
    return gather(run, list(about), crops, about)


def most_gained(run: Run, count: int, split: str) -> list[str]:
    """Return the photos in which the last stage names most classes that the first does not; `split`'s come first.

    Truth plays no part. Equal photos come in the order of their digests.
    """
    found: list[str] = []
    for name in sorted(run.stages, key=lambda other: other != split):
        photos = run.photos(name).assign(gained=_change(run, name).gained)
        ordered = photos.sort_values(["gained", "digest"], ascending=[False, True], kind="stable")
        found += list(ordered["id"].head(count - len(found)))
    return found


def _count(run: Run, split: str, stages: tuple[str, ...]) -> dict[str, Tally]:
    ids = list(run.photos(split)["id"])
    truth = run.truth(ids)
    return {stage: tally(run.slices(stage, ids), truth, run.threshold) for stage in stages}


def _change(run: Run, split: str, by_truth: bool = False) -> Changes:
    ids = list(run.photos(split)["id"])
    first, last = run.stages[split][0], run.stages[split][-1]
    pairs = zip(run.slices(first, ids), run.slices(last, ids), strict=True)
    return changes(pairs, run.threshold, run.truth(ids) if by_truth else None)


def _charts(run: Run, tables: Tables, counted: Counted, changed: Changes) -> list[Chart]:
    main = run.main
    stages = run.stages[main]
    truths = {split: tally_truth(run.truth(list(run.photos(split)["id"]))) for split in run.stages}
    ends = {
        split: Ends(told[0], told[-1], counted[split][told[0]], counted[split][told[-1]], truths[split])
        for split, told in run.stages.items()
        if len(told) > 1
    }
    drawn: list[Chart | None] = [per_class(tables.per_class, main, stages[0], stages[-1])]
    drawn += [labels_per_photo(ends), values(ends)] if ends else []
    drawn.append(calibration(counted[main], main))
    drawn += [confidence(tables.confidence, split) for split in run.stages]
    drawn.append(training(tables.history) if tables.history is not None else None)
    last = counted[main][stages[-1]].labels
    drawn.append(cooccurrence(last, truths[main], changed.ease, run.classes, stages[-1], main))
    return [chart for chart in drawn if chart is not None]
