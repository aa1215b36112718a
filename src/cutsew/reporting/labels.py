"""How many labels a photo has, before, after and in truth (paper, Figure 7a)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cutsew.reporting.chart import STAGE_TITLES, WIDTH, Chart
from cutsew.reporting.svg import AFTER, BEFORE, INK, MUTED, inline, page_style
from cutsew.reporting.tally import MOST_COUNTED, Labels, Tally


@dataclass(frozen=True)
class Ends:
    """The first and the last stage of a split, counted, and the truth where there is any."""

    first: str
    last: str
    before: Tally
    after: Tally
    truth: Labels | None


def labels_per_photo(splits: Mapping[str, Ends]) -> Chart:
    """Draw the distributions of the number of labels per photo, one panel per split."""
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.3 + 1.7 * len(splits)), layout="constrained")
        for axes, (split, ends) in zip(figure.subplots(len(splits), squeeze=False)[:, 0], splits.items(), strict=True):
            _panel(axes, ends)
            axes.set_title(f"{split} photos, percent", color=MUTED)
        svg = inline(figure, "labels")
    legend = [("before", "zero-shot"), ("after", last_names(splits))]
    with_truth = any(ends.truth for ends in splits.values())
    said = "; ".join(
        f"{split}: {STAGE_TITLES[e.first]} {e.before.labels.mean:.2f}, {STAGE_TITLES[e.last]} {e.after.labels.mean:.2f}"
        + (f", truth {e.truth.mean:.2f}" if e.truth else "")
        for split, e in splits.items()
    )
    return Chart(
        "Labels per photo",
        svg,
        f"Distributions of the number of classes named per photo. Means: {said}.",
        f"Share of the photos with so many labels. Means: {said}.",
        (*legend, ("ink", "truth")) if with_truth else tuple(legend),
    )


def _panel(axes: Axes, ends: Ends) -> None:
    shown = [(ends.before.labels, BEFORE), (ends.after.labels, AFTER)] + ([(ends.truth, INK)] if ends.truth else [])
    most = max(int(np.flatnonzero(labels.sizes).max(initial=0)) for labels, _ in shown) + 1
    width = 0.84 / len(shown)
    for i, (labels, colour) in enumerate(shown):
        places = np.arange(most) + (i - (len(shown) - 1) / 2) * width
        axes.bar(places, 100 * labels.sizes[:most] / max(labels.photos, 1), width=width, color=colour)
    named = [str(n) for n in range(MOST_COUNTED + 1)] + [f"{MOST_COUNTED + 1}+"]
    axes.set_xticks(range(most), named[:most])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")


def last_names(splits: Mapping[str, Ends]) -> str:
    """Name the last stages of some splits."""
    return " / ".join(dict.fromkeys(STAGE_TITLES[ends.last] for ends in splits.values()))
