"""What a chart on the page is, and the words that all charts share."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

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
