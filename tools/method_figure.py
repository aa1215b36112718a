"""Draw docs/images/method.png, cut and sew on one image, from a finished run of the demo.

python tools/method_figure.py results/demo/default [IMAGE] [EPOCH]
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from cutsew.audit.image import image_audit
from cutsew.audit.run import Run
from cutsew.data.images import read_image
from cutsew.method.sew import compose

OUT = Path(__file__).parents[1] / "docs" / "images" / "method.png"
IMAGE, EPOCH = "train_00152", 1
REGIONS = 4
INK, MUTED, ACCENT, LINE = "#1c2430", "#6b7683", "#00796b", "#c9d1d9"
COLORS = ["#d9480f", "#1971c2", "#7048e8", "#2f9e44"]


def draw(folder: Path, name: str, epoch: int) -> Figure:
    """Draw an image of a run: its regions and their fusion, and how an epoch sewed it."""
    run = Run(folder)
    audit = image_audit(run, name)
    figure = Figure(figsize=(11, 6.6), dpi=110, facecolor="white", layout=None)
    FigureCanvasAgg(figure)
    _cut(figure, run, audit)
    _sew(figure, run, audit, epoch)
    return figure


def _cut(figure: Figure, run: Run, audit: dict[str, Any]) -> None:
    image = read_image(Path(str(run.image(audit["image"]["id"])["path"])))
    whole, *crops = audit["views"]
    shown = _winning(audit, crops)
    axes = _panel(figure, (0.02, 0.56, 0.27, 0.33), "Cut: score the image and its regions")
    axes.imshow(image)
    for color, crop in zip(COLORS, shown, strict=False):
        left, top, right, bottom = crop["box"]
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=2.5))
    _under(axes, f"whole image: {_best(whole)}")
    for place, (color, crop) in enumerate(zip(COLORS, shown, strict=False)):
        box = (0.34 + 0.155 * (place % 2), 0.735 - 0.2 * (place // 2), 0.12, 0.155)
        axes = figure.add_axes(box)
        axes.imshow(image.crop(tuple(int(edge) for edge in crop["box"])))
        _bare(axes, color)
        _under(axes, _best(crop), size=9.5)
    figure.text(0.4, 0.905, f"{REGIONS} of {len(crops)} regions", color=MUTED, size=10)
    _bars(figure, audit)


def _winning(audit: dict[str, Any], crops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose the regions of which a class took its fused value, then others by confidence."""
    winners = [str(row["winner"]) for row in audit["classes"] if row["class"] in audit["labels"]["fused"]]
    order = [crop for crop in crops if str(crop["view"]) in winners]
    rest = sorted((crop for crop in crops if crop not in order), key=lambda crop: -crop["top"][0]["probability"])
    return [*order, *rest][:REGIONS]


def _bars(figure: Figure, audit: dict[str, Any]) -> None:
    rows = sorted(audit["classes"], key=lambda row: -row["fused"]["probability"])[:5]
    axes = figure.add_axes((0.76, 0.56, 0.2, 0.33))
    places = np.arange(len(rows))
    axes.barh(places - 0.2, [row["zero_shot"]["probability"] for row in rows], 0.36, color=LINE, label="whole image")
    axes.barh(places + 0.2, [row["fused"]["probability"] for row in rows], 0.36, color=ACCENT, label="fused")
    axes.set_yticks(places, [row["class"] for row in rows], size=10, color=INK)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("Fuse: best view per class", loc="left", size=12, weight="bold", color=INK)
    axes.set_xlabel("probability", size=9, color=MUTED)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncol=2, frameon=False, fontsize=9)


def _sew(figure: Figure, run: Run, audit: dict[str, Any], epoch: int) -> None:
    sewn = audit["sewn"]["as_background"][epoch]["overlays"]
    background = read_image(Path(str(run.image(audit["image"]["id"])["path"])))
    overlays = [read_image(Path(str(run.image(one["image"])["path"]))) for one in sewn]
    axes = _panel(figure, (0.02, 0.08, 0.27, 0.33), "Sew: paste salient images ...")
    axes.imshow(background)
    _under(axes, ", ".join(audit["labels"]["targets"]) or "none")
    for place, (one, overlay) in enumerate(zip(sewn, overlays, strict=True)):
        axes = figure.add_axes((0.355, (0.175 if len(sewn) == 1 else 0.255 - 0.19 * place), 0.12, 0.15))
        axes.imshow(overlay)
        _bare(axes, COLORS[place])
        _under(axes, ", ".join(_labels(run, one["image"])) or "none", size=9.5)
    for left, sign in ((0.315, "+"), (0.5, "=")):
        figure.text(left, 0.25, sign, size=20, color=MUTED, ha="center", va="center")
    axes = _panel(figure, (0.53, 0.08, 0.27, 0.33), "... and blend the labels")
    axes.imshow(compose(background, overlays, np.array([one["box"] for one in sewn])))
    for place, one in enumerate(sewn):
        left, top, right, bottom = one["box"]
        edge = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=COLORS[place], linewidth=2)
        axes.add_patch(edge)
    blended = dict.fromkeys([*audit["labels"]["targets"], *(c for one in sewn for c in _labels(run, one["image"]))])
    _under(axes, ", ".join(blended))
    lines = ["Train a light head", "on a frozen backbone:", "", "one look per image,", "no teacher needed"]
    figure.text(0.835, 0.24, "\n".join(lines), color=INK, size=11.5, va="center", linespacing=1.5)


def _labels(run: Run, name: str) -> list[str]:
    return list(image_audit(run, name, epochs=1)["labels"]["targets"])


def _panel(figure: Figure, box: tuple[float, float, float, float], title: str) -> Axes:
    axes = figure.add_axes(box)
    _bare(axes, LINE)
    axes.set_title(title, loc="left", size=12, weight="bold", color=INK)
    return axes


def _bare(axes: Axes, color: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(color)
        spine.set_linewidth(2)


def _under(axes: Axes, text: str, size: float = 11) -> None:
    axes.set_xlabel(text, color=INK, size=size)


def _best(view: dict[str, Any]) -> str:
    top = view["top"][0]
    return f"{top['class']} {top['probability']:.2f}"


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    drawn = draw(Path(folder), rest[0] if rest else IMAGE, int(rest[1]) if rest[1:] else EPOCH)
    drawn.canvas.draw()
    pixels = Image.fromarray(np.asarray(drawn.canvas.buffer_rgba())).convert("RGB")
    pixels.quantize(192, dither=Image.Dither.NONE).save(OUT, optimize=True)
