"""The report's charts of labels, values, classes, calibration and losses.

- How many labels an image has, before, after and in truth (paper, Figure 7a).
- Which values a stage's answers take: logits (paper, Figure 7b) and each image's confidence.
- Average precision per class, before and after.
- Whether a probability of 0.8 is right in 8 of 10 cases.
- The losses of the training.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cutsew.reporting.run_data import EDGES, MOST_COUNTED, Labels, Tally
from cutsew.reporting.style import (
    AFTER,
    BEFORE,
    CATEGORIES,
    INK,
    LINE,
    MUTED,
    STAGE_TITLES,
    WIDTH,
    WORSE,
    Chart,
    inline,
    listed,
    page_style,
    short,
)


@dataclass(frozen=True)
class BeforeAfter:
    """The first and the last stage of a split, counted, and the truth where there is any."""

    first: str
    last: str
    before: Tally
    after: Tally
    truth: Labels | None


def labels_per_image(splits: Mapping[str, BeforeAfter]) -> Chart:
    """Draw the distributions of the number of labels per image, one panel per split."""
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.3 + 1.7 * len(splits)), layout="constrained")
        for axes, (split, ends) in zip(figure.subplots(len(splits), squeeze=False)[:, 0], splits.items(), strict=True):
            _panel(axes, ends)
            axes.set_title(f"{split} images, percent", color=MUTED)
        svg = inline(figure, "labels")
    legend = [("before", "zero-shot"), ("after", last_names(splits))]
    with_truth = any(ends.truth for ends in splits.values())
    caption = "; ".join(
        f"{split}: {STAGE_TITLES[e.first]} {e.before.labels.mean:.2f}, {STAGE_TITLES[e.last]} {e.after.labels.mean:.2f}"
        + (f", truth {e.truth.mean:.2f}" if e.truth else "")
        for split, e in splits.items()
    )
    return Chart(
        "Labels per image",
        svg,
        f"Distributions of the number of classes named per image. Means: {caption}.",
        f"Share of the images with so many labels. Means: {caption}.",
        (*legend, ("ink", "truth")) if with_truth else tuple(legend),
    )


def _panel(axes: Axes, ends: BeforeAfter) -> None:
    shown = [(ends.before.labels, BEFORE), (ends.after.labels, AFTER)] + ([(ends.truth, INK)] if ends.truth else [])
    most = max(int(np.flatnonzero(labels.sizes).max(initial=0)) for labels, _ in shown) + 1
    width = 0.84 / len(shown)
    for i, (labels, color) in enumerate(shown):
        places = np.arange(most) + (i - (len(shown) - 1) / 2) * width
        axes.bar(places, 100 * labels.sizes[:most] / max(labels.images, 1), width=width, color=color)
    named = [str(n) for n in range(MOST_COUNTED + 1)] + [f"{MOST_COUNTED + 1}+"]
    axes.set_xticks(range(most), named[:most])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")


def last_names(splits: Mapping[str, BeforeAfter]) -> str:
    """Name the last stages of some splits."""
    return " / ".join(dict.fromkeys(STAGE_TITLES[ends.last] for ends in splits.values()))


def values(splits: Mapping[str, BeforeAfter]) -> Chart:
    """Draw the distributions of all logits before and after, one panel per split; a line marks the mean."""
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.3 + 1.5 * len(splits)), layout="constrained")
        drawn = figure.subplots(len(splits), sharex=True, squeeze=False)[:, 0]
        for axes, (split, ends) in zip(drawn, splits.items(), strict=True):
            for tally, color, filled in ((ends.before, BEFORE, True), (ends.after, AFTER, False)):
                share = 100 * tally.values / max(int(tally.values.sum()), 1)
                axes.stairs(share, EDGES, color=color, fill=filled, linewidth=1.6)
                axes.axvline(tally.mean_value, color=color, linewidth=1, linestyle=(0, (3, 2)))
            axes.set_title(f"{split} images, percent", color=MUTED)
            axes.set_xlim(EDGES[0], EDGES[-1])
            axes.grid(axis="y")
        axes.set_xlabel("logit")
        svg = inline(figure, "values")
    caption = "; ".join(
        f"{split}: {STAGE_TITLES[e.first]} {_number(e.before)}, {STAGE_TITLES[e.last]} {_number(e.after)}"
        for split, e in splits.items()
    )
    return Chart(
        "Values",
        svg,
        f"Histograms of the logits of all pairs of image and class. Mean logits: {caption}.",
        "Logits of all pairs of image and class; a dashed line marks the mean. 0 is a probability of one half.",
        (("before", "zero-shot"), ("after", last_names(splits))),
    )


def _number(tally: Tally) -> str:
    return f"{tally.mean_value:.2f}"


def confidence(table: pd.DataFrame, split: str) -> Chart | None:
    """Draw histograms of each image's highest probability, a panel per stage (confidence.csv); None for no images."""
    here = table[table["split"] == split]
    stages = list(dict.fromkeys(here["stage"]))
    if not here["top1"].sum():
        return None
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
        f"Confidence, {split} images",
        svg,
        f"Histograms of the highest probability per {split} image for {listed(stages)}.",
        "Probability of each image's most likely class; percent of the images per bin.",
    )


GAINED = CATEGORIES[2]
"""Green; its style class is c3."""

FEW_POSITIVES = 5
"""Images with a class below which its average precision is marked as uncertain."""

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
    rows = table[table["split"] == split]
    ap = pd.DataFrame({stage: rows[rows["stage"] == stage].set_index("class")["AP"] for stage in (first, last)})
    ap["positives"] = rows[rows["stage"] == last].set_index("class").get("positives")
    ap = ap.dropna(subset=[first, last])
    return ap.assign(gain=ap[last] - ap[first]).sort_values("gain", kind="stable")


def per_class(table: pd.DataFrame, split: str, first: str, last: str) -> Chart | None:
    """Draw each class's average precision at two stages, sorted by gain; None where no class has one."""
    ap = gains(table, split, first, last)
    if ap.empty or first == last:
        return None
    ap = ap.assign(few=ap["positives"] < FEW_POSITIVES)
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
        f"Average precision of {len(ap)} classes on {split} images, {listed((first, last))}. "
        f"Largest gain: {best.name}, {best['gain']:+.1f}; smallest: {worst.name}, {worst['gain']:+.1f} points.",
        f"{split.capitalize()} images, in percent, largest gain on top."
        + (f" * fewer than {FEW_POSITIVES} images with the class: its value is uncertain." if ap["few"].any() else "")
        + (f" {hidden} classes between the largest gains and losses are left out." if hidden else ""),
        (("before", STAGE_TITLES[first]), ("c3", f"{STAGE_TITLES[last]}, gained"), ("worse", "lost")),
    )


def _bars(axes: Axes, ap: pd.DataFrame, first: str, last: str) -> None:
    rows = np.arange(len(ap))
    colors = [GAINED if gain >= 0 else WORSE for gain in ap["gain"]]
    axes.barh(rows, np.minimum(ap[first], ap[last]), height=0.62, color=BEFORE)
    axes.barh(rows, ap["gain"].abs(), left=np.minimum(ap[first], ap[last]), height=0.62, color=colors)
    axes.set_yticks(
        rows, [short(str(n)) + (" *" if few else "") for n, few in zip(ap.index, ap["few"], strict=True)], color=INK
    )
    axes.set_ylim(-0.7, len(ap) - 0.3)
    axes.set_xlim(0, 100)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


LEAST = 10
"""Pairs that a bin needs to be drawn: the share of fewer says nothing."""


def reliability(tally: Tally) -> list[tuple[float, float]]:
    """Return (mean probability, share that is true) of each bin that holds at least LEAST pairs."""
    return [
        (float(sure / count), float(true / count))
        for sure, true, count in zip(tally.sure, tally.true, tally.counted, strict=True)
        if count >= LEAST
    ]


def calibration(tallies: Mapping[str, Tally], split: str) -> Chart | None:
    """Draw the reliability of stages; None without truth, or without enough for one point.

    Args:
        tallies: stage -> its answers, counted; the first stage first, the last one last.
        split: of the images.

    """
    if not any(reliability(tally) for tally in tallies.values()):
        return None
    styles = _styles(list(tallies))
    with page_style():
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        for stage, tally in tallies.items():
            points = reliability(tally)
            axes.plot(*zip(*points, strict=True), color=styles[stage][1], marker="o", markersize=3.5, linewidth=1.6)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("probability")
        axes.set_ylabel("share that is true")
        axes.grid()
        svg = inline(figure, "calibration")
    errors = "; ".join(f"{STAGE_TITLES[stage]} {100 * t.calibration_error:.1f}" for stage, t in tallies.items())
    return Chart(
        "Calibration",
        svg,
        f"Share of true labels over the probability given to them. Expected calibration error in percent: {errors}.",
        f"{split.capitalize()} images. On the grey line, probabilities are what they say; below it, a stage is too "
        f"sure. Expected calibration error over all pairs of image and class, in percent: {errors}.",
        tuple((styles[stage][0], STAGE_TITLES[stage]) for stage in tallies),
    )


def _styles(stages: list[str]) -> dict[str, tuple[str, str]]:
    """Give stages (style class, color): the first and the last those of before and after."""
    styles = {stage: (f"c{i}", CATEGORIES[i - 1]) for i, stage in enumerate(stages[1:-1], 2)}
    return styles | {stages[0]: ("before", BEFORE), stages[-1]: ("after", AFTER)}


LOSSES = {"m_loss": ("M-step: student", AFTER), "e_loss": ("E-step: pseudo-labels", INK)}

WINDOWS, POINTS = 50, 500
"""The mean is taken over a fiftieth of the steps; at most so many points are drawn."""


def training(history: pd.DataFrame) -> Chart | None:
    """Draw the losses of the M- and the E-step over the steps (history.csv); None where nothing was trained.

    The E-step is left out where there was none, as for the linear head: its loss is 0 then.
    """
    drawn = [name for name in LOSSES if name in history.columns and (history[name].fillna(0) != 0).any()]
    if not drawn:
        return None
    window = max(1, len(history) // WINDOWS)
    thinned = slice(None, None, max(1, len(history) // POINTS))
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.3 + 1.5 * len(drawn)), layout="constrained")
        for axes, name in zip(figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0], drawn, strict=True):
            title, color = LOSSES[name]
            smooth = history[name].rolling(window, center=True, min_periods=1).mean()
            axes.plot(history["step"][thinned], history[name][thinned], color=LINE, linewidth=0.8)
            axes.plot(history["step"][thinned], smooth[thinned], color=color, linewidth=1.6)
            axes.set_title(title, color=MUTED)
            axes.grid(axis="y")
        axes.set_xlabel("step")
        svg = inline(figure, "training")
    ends = "; ".join(f"{LOSSES[n][0]} from {history[n].iloc[0]:.3f} to {history[n].iloc[-1]:.3f}" for n in drawn)
    return Chart(
        "Training",
        svg,
        f"Losses over {len(history)} training steps. {ends}.",
        f"Loss per step, and its mean over {window} steps." if window > 1 else "Loss per step.",
    )
