"""The plot of a sweep: a panel per split, a line or a row of bars per stage."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cutsew.reporting.style import STAGE_TITLES

MEASURES = {"mAP": "mAP (%)", "labels_per_image": "labels per image"}
"""What is drawn, the first of them that is known: without truth there is no mAP."""

COLORS = {
    "zero_shot": "#8c8c8c",
    "fused": "#0072b2",
    "pseudo": "#009e73",
    "targets": "#66c2a5",
    "overridden": "#a6761d",
    "refined": "#cc79a7",
    "student": "#d55e00",
    "tiles": "#c51b8a",
    "ensemble": "#7a0177",
    "reference_zero_shot": "#bdbdbd",
    "reference_supervised": "#000000",
    "reference_smoothed": "#56b4e9",
    "reference_single_positive": "#e69f00",
}
"""Colors of the stages, distinguishable without red and green (Okabe and Ito)."""


def draw(table: pd.DataFrame, varied: Sequence[str], title: str, path: Path) -> None:
    """Draw a sweep's table as a PNG.

    Args:
        table: table.csv of stage sweep_table.
        varied: dotted settings that the sweep varies. One of numbers is drawn as lines over its values, with error
            bars of one standard deviation over seeds; all else as bars, one group per variant.
        title: heading.
        path: file to write, whatever its ending.

    """
    measure = next((name for name in MEASURES if table[name].notna().any()), "mAP")
    splits = list(dict.fromkeys(table["split"]))
    lines = is_line(table, varied)
    variants = table["variant"].nunique()
    figure = Figure(figsize=(4.6 * len(splits), 3.8 if lines else 1.6 + 0.55 * variants), layout="constrained")
    panels = figure.subplots(1, len(splits), squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        rows = table[table["split"] == split]
        if lines:
            _lines(axes, rows, varied[0], measure)
        else:
            _bars(axes, rows, measure)
        axes.set_title(f"{split} images", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    figure.savefig(path, format="png", dpi=150)


def is_line(table: pd.DataFrame, varied: Sequence[str]) -> bool:
    """Check whether a sweep varies exactly one numeric setting."""
    if len(varied) != 1:
        return False
    values = table[varied[0]]
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return bool(numeric and values.notna().all() and values.nunique() > 1)


def _lines(axes: Axes, rows: pd.DataFrame, setting: str, measure: str) -> None:
    for stage, part in rows.sort_values(setting).groupby("stage", sort=False):
        name = str(stage)
        axes.errorbar(
            part[setting],
            part[measure],
            yerr=_spread(part, measure),
            label=STAGE_TITLES[name],
            color=COLORS[name],
            marker="o",
            markersize=4,
            capsize=3,
        )
    axes.set_xlabel(setting)
    axes.set_ylabel(MEASURES[measure])
    axes.grid(axis="y", linewidth=0.4)


def _bars(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    variants = list(dict.fromkeys(rows["variant"]))
    stages = list(dict.fromkeys(rows["stage"]))
    height = 0.8 / len(stages)
    for i, stage in enumerate(stages):
        part = rows[rows["stage"] == stage].drop_duplicates("variant").set_index("variant").reindex(variants)
        places = np.arange(len(variants)) + (i - (len(stages) - 1) / 2) * height
        spread = _spread(part, measure)
        axes.barh(places, part[measure], height, xerr=spread, label=STAGE_TITLES[stage], color=COLORS[stage])
    axes.set_yticks(range(len(variants)), variants, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(MEASURES[measure])
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)


def _spread(part: pd.DataFrame, measure: str) -> "np.ndarray[tuple[int], np.dtype[np.float64]] | None":
    """Return error bars, or None where no deviation is known."""
    if measure != "mAP" or part["mAP_std"].isna().all():
        return None
    spread: np.ndarray[tuple[int], np.dtype[np.float64]] = part["mAP_std"].fillna(0).to_numpy(dtype=np.float64)
    return spread
