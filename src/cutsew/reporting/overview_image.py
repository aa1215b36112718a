"""A picture of a few images with their labels before and after, for a README."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import ImageOps

from cutsew.reporting.cards import Card
from cutsew.reporting.style import STAGE_TITLES, page_style
from cutsew.storage.atomic import atomic_path

COLUMNS, ROWS = 3, 2
MOST_LABELS = 8
IMAGE = (480, 360)
"""Pixels to which an image is cut."""

IMAGE_WIDTH, IMAGE_HEIGHT, TEXT_HEIGHT, MARGIN = 3.8, 2.85, 1.2, 0.2
WIDTH = COLUMNS * (IMAGE_WIDTH + MARGIN) + MARGIN
HEIGHT = ROWS * (IMAGE_HEIGHT + TEXT_HEIGHT) + MARGIN
"""Inches."""

INK, MUTED, BLANK = "#1c2430", "#6b7683", "#eceff2"
COLORS = {"right": "#1f7a45", "wrong": "#c0392b", "": INK}

FIRST_LINE, LINE_HEIGHT, INDENT = 0.105, 0.082, 0.235
"""Text below an image, in shares of its height and width."""


def write_scenes(path: Path, cards: Sequence[Card]) -> None:
    """Write a PNG of at most six images with the labels that zero-shot and the last stage give them.

    Where there is truth, right labels are green and wrong ones red.
    """
    with page_style(), atomic_path(path) as draft:
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=110, facecolor="white")
        FigureCanvasAgg(figure)
        for place, card in enumerate(cards[: COLUMNS * ROWS]):
            row, column = divmod(place, COLUMNS)
            left, top = MARGIN + column * (IMAGE_WIDTH + MARGIN), MARGIN + row * (IMAGE_HEIGHT + TEXT_HEIGHT)
            box = (left / WIDTH, 1 - (top + IMAGE_HEIGHT) / HEIGHT, IMAGE_WIDTH / WIDTH, IMAGE_HEIGHT / HEIGHT)
            _scene(figure.add_axes(box), card)
        figure.savefig(draft, format="png", metadata={"Software": None})


def _scene(axes: Axes, card: Card) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, IMAGE[0])
    axes.set_ylim(IMAGE[1], 0)
    if card.image is None:
        axes.add_patch(Rectangle((0, 0), *IMAGE, facecolor=BLANK, edgecolor="none"))
        axes.text(IMAGE[0] / 2, IMAGE[1] / 2, card.id, ha="center", va="center", color=MUTED, size=11)
    else:
        axes.imshow(ImageOps.fit(card.image, IMAGE), extent=(0, IMAGE[0], IMAGE[1], 0), aspect="auto")
    line = 0
    for stage in (0, -1):
        y = 1 + FIRST_LINE + line * LINE_HEIGHT
        title = STAGE_TITLES[card.stages[stage]]
        axes.text(0, y * IMAGE[1], title, color=MUTED, size=11, va="baseline", clip_on=False)
        line += _flow(axes, card.named_by(stage), y)


def _flow(axes: Axes, labels: Sequence[tuple[str, str]], y: float) -> int:
    """Set labels one after the other, onto further lines where they do not fit; return how many lines it took."""
    left = x = INDENT * IMAGE[0]
    lines = 1
    shown = [(name, COLORS[mark]) for name, mark in labels[:MOST_LABELS]]
    if len(labels) > MOST_LABELS:
        shown.append((f"+{len(labels) - MOST_LABELS}", MUTED))
    for name, color in shown or [("none", MUTED)]:
        text = axes.text(x, y * IMAGE[1], name, color=color, size=12, weight="medium", va="baseline", clip_on=False)
        box = text.get_window_extent().transformed(axes.transData.inverted())
        if box.x1 > IMAGE[0] and x > left:
            lines += 1
            y += LINE_HEIGHT
            x = left
            text.set_position((x, y * IMAGE[1]))
        x += box.width + 14
    return lines
