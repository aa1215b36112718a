"""The losses of the training."""

import pandas as pd
from matplotlib.figure import Figure

from cutsew.reporting.chart import WIDTH, Chart
from cutsew.reporting.svg import AFTER, INK, LINE, MUTED, inline, page_style

LOSSES = {"m_loss": ("M-step: adapter", AFTER), "e_loss": ("E-step: pseudo-labels", INK)}

WINDOWS, POINTS = 50, 500
"""The mean is taken over a fiftieth of the steps; at most so many points are drawn."""


def training(history: pd.DataFrame) -> Chart | None:
    """Draw the losses of the M- and the E-step over the steps (history.csv); None where nothing was trained."""
    drawn = [name for name in LOSSES if name in history.columns and history[name].notna().any()]
    if not drawn:
        return None
    window = max(1, len(history) // WINDOWS)
    thinned = slice(None, None, max(1, len(history) // POINTS))
    with page_style():
        figure = Figure(figsize=(WIDTH, 0.3 + 1.5 * len(drawn)), layout="constrained")
        for axes, name in zip(figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0], drawn, strict=True):
            title, colour = LOSSES[name]
            smooth = history[name].rolling(window, center=True, min_periods=1).mean()
            axes.plot(history["step"][thinned], history[name][thinned], color=LINE, linewidth=0.8)
            axes.plot(history["step"][thinned], smooth[thinned], color=colour, linewidth=1.6)
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
