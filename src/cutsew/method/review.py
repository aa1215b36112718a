"""Which images a human should look at next: uncertain, disputed among the stages, unlike each other; near-duplicates.

No true label is used. Probabilities are (n, C); a decision threshold t is mapped to 1/2 by shifting logits, so that
uncertainty is about the decision and not about the probability's scale.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from cutsew.method.score import logit, sigmoid

Floats = npt.NDArray[np.floating]

POOL = 3
"""Images, per image wanted, among which unlike ones are chosen (Zhdanov's beta)."""


def decided(logits: Floats, thresholds: Floats) -> Floats:
    """Return (n, C) probabilities that are 1/2 at the (C,) thresholds."""
    return sigmoid(logits.astype(np.float64) - logit(thresholds, None))


def uncertainty(probabilities: Floats) -> Floats:
    """Return (n,), how many labels are expected to be wrong: the sum of min(p, 1 - p) over classes."""
    return np.minimum(probabilities, 1 - probabilities).sum(axis=1)  # type: ignore[no-any-return]


def disagreement(stages: Sequence[Floats]) -> Floats:
    """Return (n, C) in [0, 1], the largest difference between any two stages' probabilities; 0 for one stage."""
    stacked = np.stack(stages)
    return stacked.max(axis=0) - stacked.min(axis=0)  # type: ignore[no-any-return]


def unlike(features: Floats, scores: Floats, count: int) -> npt.NDArray[np.int64]:
    """Choose images of high score that are unlike each other (Zhdanov 2019, Diverse mini-batch Active Learning).

    K-means with the scores as weights; of each cluster the image of the highest score.

    Args:
        features: (n, D) of the images; rows of length 0 are allowed.
        scores: (n,), at least 0.
        count: images to choose; all where n is not larger.

    Returns:
        (min(count, n),) rows, the highest score first; equal scores in the order of rows.

    """
    order = np.argsort(-scores, kind="stable")
    if count >= len(scores):
        return order
    from sklearn.cluster import KMeans  # noqa: PLC0415 - a second, which other commands can do without

    unit = _unit(features)
    different = len(np.unique(unit, axis=0))
    weights = np.maximum(scores, np.finfo(np.float32).eps)
    clusters = KMeans(min(count, different), n_init=1, random_state=0).fit(unit, sample_weight=weights).labels_
    first = np.unique(clusters[order], return_index=True)[1]
    chosen = np.zeros(len(order), dtype=bool)
    chosen[first] = True
    chosen[np.flatnonzero(~chosen)[: count - int(chosen.sum())]] = True  # fewer clusters than asked for
    return order[chosen]


def nearest(queries: Floats, blocks: Iterable[Floats]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Find each query's nearest row by cosine; memory is that of a block.

    Args:
        queries: (m, D) float32.
        blocks: (n_1, D), (n_2, D), ... float32.

    Returns:
        (m,) index over all blocks' rows, of equal cosines the first, and the (m,) cosine.

    """
    unit = _unit(queries)
    found, cosine, start = np.zeros(len(unit), np.int64), np.full(len(unit), -np.inf, np.float32), 0
    for block in blocks:
        values = unit @ _unit(block).T
        best = values.argmax(axis=1)
        value = values[np.arange(len(unit)), best]
        better = value > cosine
        found[better], cosine[better] = best[better] + start, value[better]
        start += len(block)
    return found, cosine


def chain(features: Floats) -> npt.NDArray[np.int64]:
    """Order n rows so that similar ones are next to each other: from the first row on, the nearest that is left.

    Args:
        features: (n, D) float32; (n, n) cosines are in memory.

    Returns:
        (n,) rows in that order; of equal cosines, to four digits, the first row.

    """
    unit = _unit(features)
    cosine = np.round(unit @ unit.T, 4)
    order = np.zeros(len(unit), np.int64)
    for place in range(1, len(order)):
        cosine[:, order[place - 1]] = -np.inf
        order[place] = cosine[order[place - 1]].argmax()
    return order


SIDE = 32
"""Pixels of a side at which two images are compared."""

CORRELATED = 0.97
"""Correlation of two images' gray values from which they show the same picture."""


def same_picture(first: Image.Image, second: Image.Image) -> bool:
    """Return whether two images are copies of each other, resized or recompressed: their small gray versions agree."""
    a, b = (
        np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64).ravel()
        for image in (first, second)
    )
    a, b = a - a.mean(), b - b.mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return length > 0 and float(a @ b) >= CORRELATED * length


def _unit(features: Floats) -> Floats:
    unit: Floats = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return unit
