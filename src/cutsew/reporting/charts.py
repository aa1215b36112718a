"""The report's charts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cutsew.reporting.svg import AFTER, BEFORE, INK, LINE, MUTED, PANEL, WORSE, inline, page_style

WIDTH = 5.0
"""Inches; the page scales a chart to its column."""

MOST_CLASSES = 80
"""Classes in the per-class chart; of more, those that gained and lost most are shown."""

STAGE_TITLES = {
    "zero_shot": "zero-shot",
    "fused": "fused",
    "pseudo": "pseudo-labels",
    "refined": "refined",
    "student": "student",
    "reference_zero_shot": "reference: zero-shot labels",
    "reference_supervised": "reference: true labels",
    "reference_smoothed": "reference: true labels, smoothed",
    "reference_single_positive": "reference: one true label",
}


@dataclass(frozen=True)
class Chart:
    """A chart for the page.

    Attributes:
        title: heading.
        svg: the drawing.
        alt: what it shows, in words, for who cannot see it.
        caption: how to read it.
        legend: (style class of the swatch, text) pairs.

    """

    title: str
    svg: Markup
    alt: str
    caption: str
    legend: tuple[tuple[str, str], ...] = ()


def per_class(table: pd.DataFrame, split: str, first: str, last: str) -> Chart | None:
    """Draw each class's average precision at two stages, sorted by gain; None where no class has one.

    Args:
        table: per_class.csv.
        split: train or test.
        first: stage at which a bar begins.
        last: stage at which it ends.

    """
    here = table[table["split"] == split]
    ap = pd.DataFrame(
        {stage: here[here["stage"] == stage].set_index("class")["AP"] for stage in (first, last)}
    ).dropna()
    if ap.empty:
        return None
    ap["gain"] = ap[last] - ap[first]
    ap = ap.sort_values("gain", kind="stable")
    hidden = len(ap) - MOST_CLASSES
    if hidden > 0:
        ap = pd.concat([ap.iloc[: MOST_CLASSES // 2], ap.iloc[-(MOST_CLASSES // 2) :]])
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.7 + 0.2 * len(ap)))
        _dumbbells(figure.subplots(), ap, first, last)
        svg = inline(figure, "per-class")
    best, worst = ap.iloc[-1], ap.iloc[0]
    return Chart(
        "Average precision per class",
        svg,
        f"Average precision of {len(ap)} classes on {split} photos, {_listed((first, last))}. "
        f"Largest gain: {best.name}, {best['gain']:+.1f}; smallest: {worst.name}, {worst['gain']:+.1f} points.",
        f"{split.capitalize()} photos, in percent, largest gain on top."
        + (f" {hidden} classes between the largest gains and losses are left out." if hidden > 0 else ""),
        (("before", STAGE_TITLES[first]), ("after", f"{STAGE_TITLES[last]}, gained"), ("worse", "lost")),
    )


def _dumbbells(axes: Axes, ap: pd.DataFrame, first: str, last: str) -> None:
    rows = np.arange(len(ap))
    colours = [AFTER if gain >= 0 else WORSE for gain in ap["gain"]]
    axes.barh(rows, np.minimum(ap[first], ap[last]), height=0.62, color=BEFORE)
    axes.barh(rows, ap["gain"].abs(), left=np.minimum(ap[first], ap[last]), height=0.62, color=colours)
    axes.set_yticks(rows, [_short(str(name)) for name in ap.index], color=INK)
    axes.set_ylim(-0.7, len(ap) - 0.3)
    axes.set_xlim(0, 100)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def labels_per_image(metrics: pd.DataFrame, truth: dict[str, float]) -> Chart:
    """Draw how many classes each stage names in a photo, on average.

    Args:
        metrics: metrics.csv.
        truth: split -> true labels per photo, where there is truth.

    """
    splits = list(dict.fromkeys(metrics["split"]))
    heights = [len(metrics[metrics["split"] == split]) for split in splits]
    top = max([*metrics["labels_per_image"], *truth.values(), 0.1]) * 1.18
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.5 + 0.28 * sum(heights) + 0.45 * len(splits)), layout="constrained")
        drawn = figure.subplots(len(splits), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, split in zip(drawn[:, 0], splits, strict=True):
            _stage_bars(axes, metrics[metrics["split"] == split], truth.get(split))
            axes.set_title(f"{split} photos", color=MUTED)
            axes.set_xlim(0, top)
        svg = inline(figure, "labels")
    said = ", ".join(
        f"{STAGE_TITLES[str(row['stage'])]} ({row['split']}) {row['labels_per_image']:.2f}"
        for _, row in metrics.iterrows()
    )
    said += "".join(f", truth ({split}) {value:.2f}" for split, value in truth.items())
    return Chart(
        "Labels per photo",
        svg,
        f"Mean number of named classes per photo: {said}.",
        "Mean number of classes at or above the threshold." + (" The line is the truth." if truth else ""),
    )


def _stage_bars(axes: Axes, rows: pd.DataFrame, truth: float | None) -> None:
    places = np.arange(len(rows))[::-1]
    axes.barh(places, rows["labels_per_image"], height=0.6, color=[BEFORE, *[AFTER] * (len(rows) - 1)])
    for place, value in zip(places, rows["labels_per_image"], strict=True):
        box = {"facecolor": PANEL, "edgecolor": "none", "pad": 1}
        axes.annotate(
            f"{value:.2f}", (value, place), (4, 0), textcoords="offset points", va="center", color=INK, size=9, bbox=box
        )
    axes.set_yticks(places, [STAGE_TITLES[stage] for stage in rows["stage"]], color=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if truth is not None:
        axes.axvline(truth, color=INK, linewidth=1, linestyle=(0, (3, 2)))


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
            axes.set_xticks([0, 0.5, 1])
            axes.grid(axis="y")
            axes.tick_params(labelbottom=True)
        for axes in panels[len(stages) :]:
            axes.set_visible(False)
        svg = inline(figure, f"confidence-{split}")
    return Chart(
        f"Confidence, {split} photos",
        svg,
        f"Histograms of the highest probability per {split} photo for {_listed(stages)}.",
        "Probability of each photo's most likely class; percent of the photos per bin.",
    )


def training(history: pd.DataFrame) -> Chart | None:
    """Draw the losses of the M- and the E-step over the steps (history.csv); None where nothing was trained."""
    losses = {"m_loss": ("M-step: adapter", AFTER), "e_loss": ("E-step: pseudo-labels", INK)}
    drawn = [name for name in losses if name in history.columns and history[name].notna().any()]
    if not drawn:
        return None
    window = max(1, len(history) // 50)
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.3 + 1.5 * len(drawn)), layout="constrained")
        for axes, name in zip(figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0], drawn, strict=True):
            title, colour = losses[name]
            smooth = history[name].rolling(window, center=True, min_periods=1).mean()
            thinned = slice(None, None, max(1, len(history) // 500))
            axes.plot(history["step"][thinned], history[name][thinned], color=LINE, linewidth=0.8)
            axes.plot(history["step"][thinned], smooth[thinned], color=colour, linewidth=1.6)
            axes.set_title(title, color=MUTED)
            axes.grid(axis="y")
        axes.set_xlabel("step")
        svg = inline(figure, "training")
    ends = "; ".join(f"{losses[n][0]} from {history[n].iloc[0]:.3f} to {history[n].iloc[-1]:.3f}" for n in drawn)
    return Chart(
        "Training",
        svg,
        f"Losses over {len(history)} training steps. {ends}.",
        f"Loss per step, and its mean over {window} steps." if window > 1 else "Loss per step.",
    )


def _short(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "\u2026"


def _listed(stages: Sequence[str]) -> str:
    return ", ".join(STAGE_TITLES[stage] for stage in stages)
