"""Which values a stage's answers take: logits (paper, Figure 7b) and each photo's confidence."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cutsew.reporting.chart import STAGE_TITLES, WIDTH, Chart, listed
from cutsew.reporting.labels import Ends, last_names
from cutsew.reporting.svg import AFTER, BEFORE, INK, MUTED, inline, page_style
from cutsew.reporting.tally import EDGES, Tally


def values(splits: Mapping[str, Ends]) -> Chart:
    """Draw the distributions of all logits before and after, one panel per split; a line marks the mean."""
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.3 + 1.5 * len(splits)), layout="constrained")
        drawn = figure.subplots(len(splits), sharex=True, squeeze=False)[:, 0]
        for axes, (split, ends) in zip(drawn, splits.items(), strict=True):
            for tally, colour, filled in ((ends.before, BEFORE, True), (ends.after, AFTER, False)):
                share = 100 * tally.values / max(int(tally.values.sum()), 1)
                axes.stairs(share, EDGES, color=colour, fill=filled, linewidth=1.6)
                axes.axvline(tally.mean_value, color=colour, linewidth=1, linestyle=(0, (3, 2)))
            axes.set_title(f"{split} photos, percent", color=MUTED)
            axes.set_xlim(EDGES[0], EDGES[-1])
            axes.grid(axis="y")
        axes.set_xlabel("logit")
        svg = inline(figure, "values")
    said = "; ".join(
        f"{split}: {STAGE_TITLES[e.first]} {_number(e.before)}, {STAGE_TITLES[e.last]} {_number(e.after)}"
        for split, e in splits.items()
    )
    return Chart(
        "Values",
        svg,
        f"Histograms of the logits of all pairs of photo and class. Mean logits: {said}.",
        "Logits of all pairs of photo and class; a dashed line marks the mean. 0 is a probability of one half.",
        (("before", "zero-shot"), ("after", last_names(splits))),
    )


def _number(tally: Tally) -> str:
    return f"{tally.mean_value:.2f}"


def confidence(table: pd.DataFrame, split: str) -> Chart:
    """Draw the histograms of each photo's highest probability, one panel per stage (confidence.csv)."""
    here = table[table["split"] == split]
    stages = list(dict.fromkeys(here["stage"]))
    columns = 2
    lines = -(-len(stages) // columns)
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.3 + 1.35 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, stage in zip(panels, stages, strict=False):
            rows = here[here["stage"] == stage]
            share = 100 * rows["top1"] / max(rows["top1"].sum(), 1)
            axes.bar(rows["low"], share, width=rows["high"] - rows["low"], align="edge", color=AFTER, edgecolor="none")
            axes.set_title(STAGE_TITLES[stage], color=INK)
            axes.set_xlim(0, 1)
            axes.set_xticks(np.array([0, 0.5, 1]))
            axes.grid(axis="y")
            axes.tick_params(labelbottom=True)
        for axes in panels[len(stages) :]:
            axes.set_visible(False)
        svg = inline(figure, f"confidence-{split}")
    return Chart(
        f"Confidence, {split} photos",
        svg,
        f"Histograms of the highest probability per {split} photo for {listed(stages)}.",
        "Probability of each photo's most likely class; percent of the photos per bin.",
    )
