"""Which classes are named together (paper, Figure 9)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cutsew.reporting.chart import STAGE_TITLES, Chart, short
from cutsew.reporting.svg import AFTER, INK, MUTED, inline, page_style
from cutsew.reporting.tally import Labels

Floats = npt.NDArray[np.floating[Any]]

MOST_ROWS, MOST_COLUMNS = 20, 30
"""Of more classes, rows are the easiest and the hardest ones, and columns those that are named most."""

CELL = 0.21
"""Inches."""

FAINTEST = 0.01
"""A share below it is not drawn."""


def chosen(labels: Labels, ease: Floats) -> tuple[list[int], list[int]]:
    """Choose the classes of rows and columns.

    Args:
        labels: as named; (C, C).
        ease: (C,) how easy each class is, NaN where not known.

    Returns:
        Rows from easy to hard, half of them from each end; columns from frequent to rare.

    """
    order = [int(c) for c in np.argsort(-np.nan_to_num(ease, nan=-1.0), kind="stable")]
    if len(order) > MOST_ROWS:
        order = order[: MOST_ROWS // 2] + order[-(MOST_ROWS // 2) :]
    frequent = np.argsort(-np.diag(labels.together), kind="stable")[:MOST_COLUMNS]
    return order, [int(c) for c in frequent]


def cooccurrence(
    named: Labels, truth: Labels | None, ease: Floats, classes: Sequence[str], stage: str, split: str
) -> Chart | None:
    """Draw the share of the photos with a row's class that have the column's class too; truth's beside where known.

    None where no two classes are ever named together.
    """
    pairs = named.together.copy()
    np.fill_diagonal(pairs, 0)
    if not pairs.any():
        return None
    rows, columns = chosen(named, ease)
    panels = [(STAGE_TITLES[stage], named.given())] + ([("truth", truth.given())] if truth else [])
    width, height = CELL * len(columns) + 1.6, CELL * len(rows) + 1.6
    with page_style():
        figure = Figure(figsize=(width * len(panels), height), layout="constrained")
        drawn = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, share) in zip(drawn, panels, strict=True):
            _cells(axes, share, rows, columns, classes)
            axes.set_title(title, color=MUTED)
        svg = inline(figure, "together")
    a, b = divmod(int(pairs.argmax()), len(pairs))
    return Chart(
        "Classes named together",
        svg,
        f"Heat map of how often classes are named together on {split} photos. Most often: {classes[a]} and "
        f"{classes[b]}, on {pairs[a, b]} photos, {100 * named.given()[a, b]:.0f} percent of those with {classes[a]}.",
        f"{split.capitalize()} photos: of those with the row's class, the share that has the column's class too; full "
        "colour is all of them. Rows from the easiest class to the hardest.",
        wide=True,
    )


def _cells(axes: Axes, share: Floats, rows: Sequence[int], columns: Sequence[int], classes: Sequence[str]) -> None:
    cells, colours = [], []
    for y, a in enumerate(rows):
        for x, b in enumerate(columns):
            if a != b and share[a, b] >= FAINTEST:
                cells.append(Rectangle((x - 0.5, y - 0.5), 1, 1))
                colours.append(to_rgba(AFTER, round(float(share[a, b]), 2)))
    axes.add_collection(PatchCollection(cells, facecolors=colours, edgecolors="none"))
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), [short(classes[c], 16) for c in columns], rotation=90, color=INK)
    axes.set_yticks(range(len(rows)), [short(classes[c], 16) for c in rows], color=INK)
    axes.tick_params(length=0)
