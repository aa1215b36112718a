"""How charts look and how they stand in the page.

- Matplotlib figures as SVG that stands inside a page and takes its colors from the page's style.
- What a chart on the page is, and the words that all charts share.
"""

import io
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

# Stand-ins that matplotlib paints with; each becomes a variable of the page's style, so that one SVG serves light and
# dark alike.
INK, MUTED, LINE, BEFORE, AFTER, WORSE, PANEL, *CATEGORIES = (f"#0{n:x}0{n:x}0{n:x}" for n in range(1, 16))
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    BEFORE: "var(--before)",
    AFTER: "var(--after)",
    WORSE: "var(--worse)",
    PANEL: "var(--panel)",
    **{color: f"var(--c{i})" for i, color in enumerate(CATEGORIES, 1)},
}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@contextmanager
def page_style() -> Iterator[None]:
    """Draw in the page's style: text is never mathematics, and a glyph that the font lacks brings no warning."""
    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    fonts.setLevel(logging.ERROR)
    try:
        with mpl.rc_context({**STYLE, "svg.hashsalt": "cutsew"}):
            yield
    finally:
        fonts.setLevel(level)


def inline(figure: Figure, name: str) -> Markup:
    """Render a figure as an <svg> element for a page.

    Args:
        figure: drawn under `page_style`.
        name: distinct within the page; every id in the SVG begins with it.

    """
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing, bbox_inches="tight", pad_inches=0.04)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", text)
    text = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r"<svg \1", text)
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"(font: [^;\"']*?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, variable)
    return Markup(text)  # noqa: S704  # matplotlib escapes text; the page's test feeds it markup


WIDTH = 5.0
"""Inches; the page scales a chart to its column."""

STAGE_TITLES = {
    "zero_shot": "zero-shot",
    "fused": "fused",
    "pseudo": "pseudo-labels",
    "targets": "targets",
    "overridden": "corrected by hand",
    "refined": "refined",
    "student": "student",
    "tiles": "student with tiles",
    "ensemble": "student and teacher",
    "final": "final",
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
        wide: needs the page's whole width.

    """

    title: str
    svg: Markup
    alt: str
    caption: str
    legend: tuple[tuple[str, str], ...] = ()
    wide: bool = False


def short(name: str, limit: int = 24) -> str:
    """Cut a name that is too long for an axis."""
    return name if len(name) <= limit else name[: limit - 1] + "\u2026"


def listed(stages: Sequence[str]) -> str:
    """Name stages in words."""
    return ", ".join(STAGE_TITLES[stage] for stage in stages)
