"""Average precision per class, before and after."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cutsew.reporting.chart import STAGE_TITLES, WIDTH, Chart, listed, short
from cutsew.reporting.svg import AFTER, BEFORE, INK, WORSE, inline, page_style

MOST_CLASSES = 80
"""Classes in the chart; of more, those that gained and lost most are shown."""


def gains(table: pd.DataFrame, split: str, first: str, last: str) -> pd.DataFrame:
    """Lay out the average precision (percent) of each class at two stages and its `gain`, smallest gain first.

    Args:
        table: per_class.csv.
        split: train or test.
        first: stage before.
        last: stage after.

    """
    here = table[table["split"] == split]
    ap = pd.DataFrame({stage: here[here["stage"] == stage].set_index("class")["AP"] for stage in (first, last)})
    ap = ap.dropna()
    return ap.assign(gain=ap[last] - ap[first]).sort_values("gain", kind="stable")


def per_class(table: pd.DataFrame, split: str, first: str, last: str) -> Chart | None:
    """Draw each class's average precision at two stages, sorted by gain; None where no class has one."""
    ap = gains(table, split, first, last)
    if ap.empty or first == last:
        return None
    hidden = max(0, len(ap) - MOST_CLASSES)
    if hidden:
        ap = pd.concat([ap.iloc[: MOST_CLASSES // 2], ap.iloc[-(MOST_CLASSES // 2) :]])
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.7 + 0.2 * len(ap)))
        _bars(figure.subplots(), ap, first, last)
        svg = inline(figure, "per-class")
    best, worst = ap.iloc[-1], ap.iloc[0]
    return Chart(
        "Average precision per class",
        svg,
        f"Average precision of {len(ap)} classes on {split} photos, {listed((first, last))}. "
        f"Largest gain: {best.name}, {best['gain']:+.1f}; smallest: {worst.name}, {worst['gain']:+.1f} points.",
        f"{split.capitalize()} photos, in percent, largest gain on top."
        + (f" {hidden} classes between the largest gains and losses are left out." if hidden else ""),
        (("before", STAGE_TITLES[first]), ("after", f"{STAGE_TITLES[last]}, gained"), ("worse", "lost")),
    )


def _bars(axes: Axes, ap: pd.DataFrame, first: str, last: str) -> None:
    rows = np.arange(len(ap))
    colours = [AFTER if gain >= 0 else WORSE for gain in ap["gain"]]
    axes.barh(rows, np.minimum(ap[first], ap[last]), height=0.62, color=BEFORE)
    axes.barh(rows, ap["gain"].abs(), left=np.minimum(ap[first], ap[last]), height=0.62, color=colours)
    axes.set_yticks(rows, [short(str(name)) for name in ap.index], color=INK)
    axes.set_ylim(-0.7, len(ap) - 0.3)
    axes.set_xlim(0, 100)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
