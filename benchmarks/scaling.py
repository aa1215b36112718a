"""Time and memory of what comes after encoding, against the number of images; draws docs/images/scaling.png.

python benchmarks/scaling.py

Narrow embeddings and few passes, so that a million images fit a small disk: each of both only multiplies the time.
"""

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import typer

from after_encoding import labelling
from common import REPEATS, RESULTS, ROOT, Out, Repeats, Thing, Tiny, measure
from synthetic import write_world
from tables import Ratio, Report, Row, publish, total

SIZES = (10_000, 100_000, 1_000_000)
SHAPE = {"passes": 2, "classes": 80, "width": 32}
PLOT = ROOT / "docs" / "images" / "scaling.png"


def main(tiny: Tiny = False, repeats: Repeats = REPEATS, out: Out = RESULTS) -> None:
    """Measure score, fuse, correct and select at several numbers of images."""
    sizes = (300, 400) if tiny else SIZES
    with tempfile.TemporaryDirectory() as temporary:
        stages = {images: _stages(Path(temporary, str(images)), images, here=tiny) for images in sizes}
        rounds = measure([thing for things in stages.values() for thing in things], repeats, warm=0 if tiny else 1)
    parts = {images: [thing.name for thing in things] for images, things in stages.items()}
    totals = {images: total(f"{images:,} images", names, rounds) for images, names in parts.items()}
    ratios = [_per_image(totals, *pair) for pair in zip(sizes, sizes[1:], strict=False)]
    title = f"Score, fuse, correct and select: {', '.join(f'{n} {name}' for name, n in SHAPE.items())}"
    publish(Report("scaling", title, list(totals.values()), ratios, SHAPE), out, tiny)
    _draw(totals, out / PLOT.name if tiny else PLOT)


def _stages(folder: Path, images: int, *, here: bool) -> list[Thing]:
    write_world(folder, images, **SHAPE)
    return [replace(t, name=f"{t.name}, {images:,} images") for t in labelling(folder, SHAPE["classes"], here=here)]


def _per_image(totals: Mapping[int, Row], fewer: int, more: int) -> Ratio:
    """Divide the time per image at the larger number by that at the smaller: at most 1 where time is linear."""
    pairs = zip(totals[more].runs, totals[fewer].runs, strict=True)
    values = [(many.cpu / more) / (few.cpu / fewer) for many, few in pairs]
    return Ratio(f"time per image, {more:,} / {fewer:,}", values, "cpu", "linear")


def _draw(totals: Mapping[int, Row], path: Path) -> None:
    """Draw CPU time and peak memory against the number of images, every run a dot."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, (time, memory) = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
    images, runs = zip(*((images, run) for images, row in totals.items() for run in row.runs), strict=True)
    for axes, values, name in (
        (time, [run.cpu for run in runs], "CPU time, s"),
        (memory, [run.rss / 2**20 for run in runs], "peak memory, MiB"),
    ):
        axes.plot(images, values, "o", ms=4, alpha=0.6)
        axes.set(xscale="log", xlabel="images", title=name)
        axes.grid(alpha=0.3)
    (few, least), *_, (many, most) = [(n, statistics.median(run.cpu for run in row.runs)) for n, row in totals.items()]
    slope = (most - least) / (many - few)
    line = [few * (many / few) ** (i / 50) for i in range(51)]
    label = f"{least - few * slope:.1f} s and {1e6 * slope:.0f} µs an image"
    time.plot(line, [least + (n - few) * slope for n in line], "--", lw=1, label=label)
    time.set_yscale("log")
    time.legend(frameon=False)
    memory.set_ylim(bottom=0)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
