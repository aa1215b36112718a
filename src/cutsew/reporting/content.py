"""Everything that the page shows about a run, gathered from its artifacts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.method.thresholds import named
from cutsew.reporting.cards import SIDE, Card, Crops, gather
from cutsew.reporting.charts import BeforeAfter, calibration, confidence, labels_per_image, per_class, training, values
from cutsew.reporting.heatmaps import Maps, activation_maps, chosen, cooccurrence, features
from cutsew.reporting.photos import Photos, gather_photos
from cutsew.reporting.run_data import Labels, Pairs, Run, Tally, tally, tally_truth, true_sets
from cutsew.reporting.selection import Changes, Ranked, changes, digest_order, easiest_and_hardest, select_examples
from cutsew.reporting.style import STAGE_TITLES, Chart


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
class ReportContent:
    """What the page shows besides its tables.

    Attributes:
        charts: in the order of the page.
        easiest: classes that the whole image shows best.
        hardest: classes that it shows worst.
        by_truth: whether an image's classes are the true ones there, not the last stage's.
        maps: where teacher and student look.
        cards: of the gallery.
        photos: all images, or a sample of many.
        copies: (held-out id, training id) of held-out images that are nearly a training image.
        labels: those of the last stage, counted by split.

    """

    charts: list[Chart] = field(default_factory=list)
    easiest: list[Ranked] = field(default_factory=list)
    hardest: list[Ranked] = field(default_factory=list)
    by_truth: bool = False
    maps: list[Maps] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    photos: Photos = field(default_factory=Photos)
    copies: Sequence[tuple[str, str]] = ()
    labels: dict[str, Labels] = field(default_factory=dict)


class Review(NamedTuple):
    """What a human should look at.

    Attributes:
        queue: ids of the images to check next.
        copies: as in ReportContent.
        embed: gives (n, D) embeddings of n images; None where similar images are not to be found.

    """

    queue: Sequence[str] = ()
    copies: Sequence[tuple[str, str]] = ()
    embed: Callable[[list[str]], npt.NDArray[np.float32]] | None = None


Counted = dict[str, dict[str, Tally]]


def build_report_content(
    run: Run, tables: Tables, crops: Crops, maps: Path | None, review: Review, done: Callable[[], object]
) -> ReportContent:
    """Gather everything.

    Args:
        run: the run.
        tables: what evaluate wrote.
        crops: which crop won.
        maps: maps.zarr, None where nobody looked where the models look.
        review: what a human should look at.
        done: called after each of PARTS parts.

    """
    content = ReportContent(copies=review.copies)
    with _part(done):
        content.photos = gather_photos(run, crops, review.queue, review.embed)
    with _part(done):
        counted = {split: _count(run, split, stages) for split, stages in run.stages.items()}
        content.labels = {split: counted[split][stages[-1]].labels for split, stages in run.stages.items()}
    with _part(done):
        changed = {split: _change(run, split) for split in run.stages}
        content.by_truth = bool((run.truth(run.ids_of(run.main)) == 1).any())
    with _part(done):
        content.cards = gallery(run, crops, counted, changed)
    with _part(done):
        decided = _change(run, run.main, by_truth=True) if content.by_truth else changed[run.main]
        if len(run.stages[run.main]) > 1:
            content.easiest, content.hardest = easiest_and_hardest(run, run.main, decided)
    with _part(done):
        content.charts = _charts(run, tables, counted, decided)
    with _part(done):
        if maps is not None:
            content.maps = activation_maps(maps, run)
            drawn = features(maps, run)
            content.charts += [drawn] if drawn else []
    return content


PARTS = 7
"""Times that `find` calls `done`."""


@contextmanager
def _part(done: Callable[[], object]) -> Iterator[None]:
    yield
    done()


MANY, SIDE_OF_MANY = 1_500, 300
"""Images of a run from which the gallery's are smaller, in pixels: the page shows the others too."""


def gallery(run: Run, crops: Crops, counted: Counted, changed: dict[str, Changes]) -> list[Card]:
    """Choose images worth looking at, those of the main split first, and gather what is said about them."""
    about: dict[str, dict[str, object]] = {}
    for split in sorted(run.stages, key=lambda split: split != run.main):
        stages, images, change = run.stages[split], run.images_of(split), changed[split]
        named = [counted[split][stage].labels.counts for stage in (stages[0], stages[-1])]
        moved = np.abs(named[1] - named[0])
        corrected = np.flatnonzero(images["id"].isin(run.corrections.images if run.corrections else [])).tolist()
        chosen = select_examples(change, images["digest"], moved, 1 / len(run.stages), corrected)
        for i, why in chosen.items():
            figures = (("gained", change.gained[i]), ("lost", change.lost[i]), ("bits", round(change.bits[i], 2)))
            about[str(images["id"][i])] = {
                "why": tuple(why),
                "figures": tuple((name, float(value)) for name, value in figures),
            }
    side = SIDE if len(run.images) <= MANY else SIDE_OF_MANY
    return gather(run, list(about), crops, about, side)


def most_gained(run: Run, count: int, split: str) -> list[str]:
    """Return the images in which the last stage names most classes that the first does not; `split`'s come first.

    Truth plays no part. Equal images come in the order of their digests.
    """
    names: list[str] = []
    for name in sorted(run.stages, key=lambda other: other != split):
        order = np.lexsort((digest_order(run.images_of(name)["digest"]), -_change(run, name).gained))
        names += run.ids_of(name)[order[: count - len(names)]].tolist()
    return names


def _count(run: Run, split: str, stages: tuple[str, ...]) -> dict[str, Tally]:
    ids = run.ids_of(split)
    truth = run.truth(ids)
    return {stage: tally(run.slices(stage, ids), truth, run.thresholds_of(stage, split)) for stage in stages}


def _change(run: Run, split: str, by_truth: bool = False) -> Changes:
    ids = run.ids_of(split)
    first, last = run.stages[split][0], run.stages[split][-1]
    pairs = zip(run.slices(first, ids), run.slices(last, ids), strict=True)
    thresholds = run.thresholds_of(first, split), run.thresholds_of(last, split)
    return changes(pairs, thresholds, run.truth(ids) if by_truth else None)


def _charts(run: Run, tables: Tables, counted: Counted, changed: Changes) -> list[Chart]:
    main = run.main
    stages = run.stages[main]
    truths = {split: tally_truth(run.truth(run.ids_of(split))) for split in run.stages}
    ends = {
        split: BeforeAfter(result[0], result[-1], counted[split][result[0]], counted[split][result[-1]], truths[split])
        for split, result in run.stages.items()
        if len(result) > 1
    }
    drawn: list[Chart | None] = [per_class(tables.per_class, main, stages[0], stages[-1])]
    drawn += [labels_per_image(ends), values(ends)] if ends else []
    drawn.append(calibration(counted[main], main))
    drawn += [confidence(tables.confidence, split) for split in run.stages]
    drawn.append(training(tables.history) if tables.history is not None else None)
    has_truth = truths[main] is not None
    drawn.append(_cooccurrence(run, counted[main][stages[-1]].labels, changed, has_truth=has_truth))
    return [chart for chart in drawn if chart is not None]


def _cooccurrence(run: Run, labels: Labels, changed: Changes, *, has_truth: bool) -> Chart | None:
    """Draw which classes the last stage of the main split names together; pairs of other classes are not counted."""
    stage, ids = run.stages[run.main][-1], run.ids_of(run.main)
    rows, columns = chosen(labels.counts, changed.ease)
    predicted = Pairs([*rows, *columns])
    thresholds = run.thresholds_of(stage, run.main)
    for z in run.slices(stage, ids):
        predicted.add(named(z, thresholds))
    panels = {STAGE_TITLES[stage]: predicted}
    if has_truth:
        panels["truth"] = Pairs([*rows, *columns])
        for has in true_sets(run.truth(ids)):
            panels["truth"].add(has)
    return cooccurrence(rows, columns, panels, run.classes, run.main)
