"""The report's images: co-occurrence, activation maps, embeddings.

- Features of a sample of images before and after, laid out in the plane by t-SNE (paper, Figure 12).
- Which classes are named together (paper, Figure 9).
- Class activation maps of teacher and student over images (paper, Figures 8 and 11), and features before and after.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from cutsew.method.score import sigmoid
from cutsew.reporting.cards import data_uri, thumbnail
from cutsew.reporting.run_data import Pairs, Run
from cutsew.reporting.style import AFTER, CATEGORIES, INK, MUTED, Chart, inline, page_style, short
from cutsew.storage.manifest import paths_of
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

LEAST_POINTS, MOST_POINTS = 10, 1000
"""Images: fewer say nothing, more take too long and are left out."""

PERPLEXITY = 30.0
STEPS = 500
"""Half of scikit-learn's default: enough for so few images."""

DIMENSIONS = 50
"""Features are brought to so many principal components first, as the method's authors do."""

OTHERS = "other classes"


def layout(features: Floats) -> npt.NDArray[np.float64]:
    """Lay (m, D) features out in the plane, the same way each time.

    Directions count, not lengths: features are normalized first, as the teacher compares them.

    Returns:
        (m, 2), each axis scaled to [0, 1].

    """
    from sklearn.decomposition import PCA  # noqa: PLC0415  # slow to load, and only needed here
    from sklearn.manifold import TSNE  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    x = features.astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    perplexity = min(PERPLEXITY, (len(x) - 1) / 3)
    with threadpool_limits(limits=1):  # with more threads it waits more than it works, and sums differ from run to run
        if x.shape[1] > DIMENSIONS and len(x) > DIMENSIONS:
            x = PCA(DIMENSIONS, random_state=0).fit_transform(x)
        fitted = TSNE(perplexity=perplexity, max_iter=STEPS, init="pca", random_state=0, n_jobs=1).fit_transform(x)
    places = fitted.astype(np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    scaled: npt.NDArray[np.float64] = (places - low) / np.maximum(high - low, 1e-12)
    return scaled


def tsne(before: Floats, after: Floats, classes: Sequence[str]) -> Chart | None:
    """Draw two sets of features of the same m images side by side; None for too few images.

    Args:
        before: (m, D).
        after: (m, W).
        classes: (m,) the class of each image; the most frequent ones have colors of their own.

    """
    if len(before) < LEAST_POINTS:
        return None
    before, after, classes = before[:MOST_POINTS], after[:MOST_POINTS], classes[:MOST_POINTS]
    colored = [name for name, _ in Counter(classes).most_common(len(CATEGORIES))]
    order = [*colored, OTHERS] if len(set(classes)) > len(colored) else colored
    belongs = np.array([order.index(name) if name in colored else len(colored) for name in classes])
    with page_style():
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        for axes, title, features in zip(figure.subplots(1, 2), ("before", "after"), (before, after), strict=True):
            places = layout(features)
            for i in range(len(order)):
                color = CATEGORIES[i] if i < len(colored) else MUTED
                axes.plot(*places[belongs == i].T, "o", color=color, markersize=3, markeredgewidth=0)
            axes.set_title(title, color=INK)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_aspect("equal")
        svg = inline(figure, "tsne")
    return Chart(
        "Features before and after",
        svg,
        f"t-SNE of the features of {len(before)} images, before and after, colored by their first class.",
        f"{len(before)} images by t-SNE of the teacher's (before) and the student's (after) features; color is the "
        "most likely class at the last stage. Distances between far groups mean nothing.",
        tuple((f"c{i}" if i <= len(colored) else "muted", short(name)) for i, name in enumerate(order, 1)),
        wide=True,
    )


MOST_ROWS, MOST_COLUMNS = 20, 30
"""Of more classes, rows are the easiest and the hardest ones, and columns those that are named most."""

CELL = 0.21
"""Inches."""

FAINTEST = 0.01
"""A share below it is not drawn."""


def chosen(counts: Ints, ease: Floats) -> tuple[list[int], list[int]]:
    """Choose the classes of rows and columns.

    Args:
        counts: (C,) images in which each class is named.
        ease: (C,) how easy each class is, NaN where not known.

    Returns:
        Rows from easy to hard, half of them from each end; columns from frequent to rare.

    """
    order = [int(c) for c in np.argsort(-np.nan_to_num(ease, nan=-1.0), kind="stable")]
    if len(order) > MOST_ROWS:
        order = order[: MOST_ROWS // 2] + order[-(MOST_ROWS // 2) :]
    frequent = np.argsort(-counts, kind="stable")[:MOST_COLUMNS]
    return order, [int(c) for c in frequent]


def cooccurrence(
    rows: Sequence[int],
    columns: Sequence[int],
    panels: Mapping[str, Pairs],
    classes: Sequence[str],
    split: str,
) -> Chart | None:
    """Draw the share of the images with a row's class that also have the column's.

    None where no two of these classes are ever named together.

    Args:
        rows: classes, by number.
        columns: classes, by number.
        panels: title -> pairs of these classes that have it: those of a stage, and of the ground truth if known.
        classes: C names.
        split: of the images.

    """
    named = next(iter(panels.values()))
    pair = named.commonest()
    if pair is None:
        return None
    width, height = CELL * len(columns) + 1.6, CELL * len(rows) + 1.6
    with page_style():
        figure = Figure(figsize=(width * len(panels), height), layout="constrained")
        drawn = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, pairs) in zip(drawn, panels.items(), strict=True):
            _cells(axes, pairs.given(rows, columns), rows, columns, classes)
            axes.set_title(title, color=MUTED)
        svg = inline(figure, "together")
    a, b, images = pair
    share = named.given([a], [b]).item()
    often = "Most often" if len(named.classes) == len(classes) else "Most often of the classes shown"
    return Chart(
        "Classes named together",
        svg,
        f"Heat map of how often classes are named together on {split} images. {often}: {classes[a]} and "
        f"{classes[b]}, on {images} images, {100 * share:.0f} percent of those with {classes[a]}.",
        f"{split.capitalize()} images: of those with the row's class, the share that has the column's class too; full "
        "color is all of them. Rows from the easiest class to the hardest.",
        wide=len(panels) > 1,
    )


def _cells(axes: Axes, share: Floats, rows: Sequence[int], columns: Sequence[int], classes: Sequence[str]) -> None:
    cells, colors = [], []
    for y, a in enumerate(rows):
        for x, b in enumerate(columns):
            if a != b and share[y, x] >= FAINTEST:
                cells.append(Rectangle((x - 0.5, y - 0.5), 1, 1))
                colors.append(to_rgba(AFTER, round(float(share[y, x]), 2)))
    axes.add_collection(PatchCollection(cells, facecolors=colors, edgecolors="none"))
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), [short(classes[c], 16) for c in columns], rotation=90, color=INK)
    axes.set_yticks(range(len(rows)), [short(classes[c], 16) for c in rows], color=INK)
    axes.tick_params(length=0)


MOST_MAPS = 12
"""Pairs of image and class whose maps are shown."""

SIDE = 260
"""Longest side of the images, in pixels."""

FAINT, STRONG = 0.15, 0.75
"""How much of a map's color covers the image where it is 0 and where it is 1."""


@dataclass(frozen=True)
class Maps:
    """Where teacher and student look for a class in an image; each picture is a data URI."""

    image: str
    name: str
    plain: str
    teacher: str
    student: str


def overlaid(image: Image.Image, activation: Floats) -> Image.Image:
    """Lay a map over an image.

    Args:
        image: RGB.
        activation: (g, g) in [0, 1], of the whole image, its first row at the top.

    """
    wide = Image.fromarray(np.nan_to_num(activation).astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(wide), 0, 1)
    colors = mpl.colormaps["inferno"](strength)[..., :3] * 255
    share = (FAINT + (STRONG - FAINT) * strength)[..., None]
    mixed = (1 - share) * np.asarray(image, dtype=np.float32) + share * colors
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def spread(classes: Sequence[str], count: int) -> list[int]:
    """Choose up to `count` pairs so that many classes have one: the first of every class, then the second, ..."""
    met: dict[str, int] = {}
    rounds = []
    for i, name in enumerate(classes):
        rounds.append((met.get(name, 0), i))
        met[name] = met.get(name, 0) + 1
    return sorted(i for _, i in sorted(rounds)[:count])


def activation_maps(path: Path, run: Run) -> list[Maps]:
    """Lay the maps of some pairs over their images; images that cannot be read are left out.

    Args:
        path: maps.zarr: `teacher` (n, g, g) and `student` (n, h, h) in [0, 1], coordinates `image` (n), `class` (n).
        run: that it was made from.

    Raises:
        UserError: not such a Zarr.

    """
    group = open_group(path)
    teacher, student = array_of(group, "teacher"), array_of(group, "student")
    ids, classes = labels_of(group, "image"), labels_of(group, "class")
    paths = paths_of(run.images, set(ids))
    maps = []
    for i in spread(classes, MOST_MAPS):
        image = thumbnail(str(paths[ids[i]]), SIDE) if ids[i] in paths else None
        if image is not None:
            shown = [overlaid(image, read(array, i)) for array in (teacher, student)]
            maps.append(Maps(ids[i], classes[i], *(data_uri(picture) for picture in (image, *shown))))
    return maps


def features(path: Path, run: Run) -> Chart | None:
    """Draw the features of the images of maps.zarr: `before` (m, D), `after` (m, W), coordinate `sample` (m ids).

    Raises:
        UserError: not such a Zarr.

    """
    group = open_group(path)
    sample = labels_of(group, "sample")[:MOST_POINTS]
    before, after = (read(array_of(group, name), slice(len(sample))) for name in ("before", "after"))
    first = first_classes(run, sample)
    indices = [i for i, name in enumerate(sample) if name in first]
    return tsne(before[indices], after[indices], [first[sample[i]] for i in indices])


def first_classes(run: Run, ids: Sequence[str]) -> dict[str, str]:
    """Name the most likely class of images at their last stage; images that the run does not hold are left out."""
    result: dict[str, str] = {}
    images = run.images[run.images["id"].isin(list(ids))]
    for split, rows in images.groupby("split", sort=False):
        stages = run.stages.get(str(split), ())
        if stages:
            names = list(rows["id"])
            best = sigmoid(run.read(stages[-1], names)).argmax(axis=1)
            result |= {name: run.classes[int(c)] for name, c in zip(names, best, strict=True)}
    return result
