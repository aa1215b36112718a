"""Whether a probability of 0.8 is right in 8 of 10 cases."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from cutsew.reporting.chart import STAGE_TITLES, WIDTH, Chart
from cutsew.reporting.svg import AFTER, BEFORE, CATEGORIES, LINE, inline, page_style
from cutsew.reporting.tally import Tally

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
    """Draw the reliability of stages; None without truth.

    Args:
        tallies: stage -> its answers, counted; the first stage first, the last one last.
        split: of the photos.

    """
    if not any(tally.counted.any() for tally in tallies.values()):
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
        f"{split.capitalize()} photos. On the grey line, probabilities are what they say; below it, a stage is too "
        f"sure. Expected calibration error over all pairs of photo and class, in percent: {errors}.",
        tuple((styles[stage][0], STAGE_TITLES[stage]) for stage in tallies),
    )


def _styles(stages: list[str]) -> dict[str, tuple[str, str]]:
    """Give stages (style class, colour): the first and the last those of before and after."""
    styles = {stage: (f"c{i}", CATEGORIES[i - 1]) for i, stage in enumerate(stages[1:-1], 2)}
    return styles | {stages[0]: ("before", BEFORE), stages[-1]: ("after", AFTER)}
