"""Features of a sample of photos before and after, laid out in the plane by t-SNE (paper, Figure 12)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from cutsew.reporting.chart import Chart, short
from cutsew.reporting.svg import CATEGORIES, INK, MUTED, inline, page_style

Floats = npt.NDArray[np.floating[Any]]

LEAST, MOST = 10, 1000
"""Photos: fewer say nothing, more take too long and are left out."""

PERPLEXITY = 30.0
STEPS = 500
"""Half of scikit-learn's default: enough for so few photos."""

DIMENSIONS = 50
"""Features are brought to so many principal components first, as the method's authors do."""

OTHERS = "other classes"


def layout(features: Floats) -> npt.NDArray[np.float64]:
    """Lay (m, D) features out in the plane, the same way each time.

    Directions count, not lengths: features are normalised first, as the teacher compares them.

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
    """Draw two sets of features of the same m photos side by side; None for too few photos.

    Args:
        before: (m, D).
        after: (m, W).
        classes: (m,) the class of each photo; the most frequent ones have colours of their own.

    """
    if len(before) < LEAST:
        return None
    before, after, classes = before[:MOST], after[:MOST], classes[:MOST]
    coloured = [name for name, _ in Counter(classes).most_common(len(CATEGORIES))]
    order = [*coloured, OTHERS] if len(set(classes)) > len(coloured) else coloured
    belongs = np.array([order.index(name) if name in coloured else len(coloured) for name in classes])
    with page_style():
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        for axes, title, features in zip(figure.subplots(1, 2), ("before", "after"), (before, after), strict=True):
            places = layout(features)
            for i in range(len(order)):
                colour = CATEGORIES[i] if i < len(coloured) else MUTED
                axes.plot(*places[belongs == i].T, "o", color=colour, markersize=3, markeredgewidth=0)
            axes.set_title(title, color=INK)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_aspect("equal")
        svg = inline(figure, "tsne")
    return Chart(
        "Features before and after",
        svg,
        f"t-SNE of the features of {len(before)} photos, before and after, coloured by their first class.",
        f"{len(before)} photos by t-SNE of the teacher's (before) and the student's (after) features; colour is the "
        "most likely class at the last stage. Distances between far groups mean nothing.",
        tuple((f"c{i}" if i <= len(coloured) else "muted", short(name)) for i, name in enumerate(order, 1)),
        wide=True,
    )
