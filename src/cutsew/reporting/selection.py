"""Which images and classes the report shows.

- What changed between the first and the last stage: per image, and the images at the ends of each class.
- Which images are worth looking at. Truth plays no part in the choice.
- The classes that the whole image shows best and worst, and the clearest image of each (paper, Table 9, Figure 10).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.method.score import sigmoid
from cutsew.method.thresholds import named
from cutsew.reporting.cards import data_uri, thumbnail
from cutsew.reporting.run_data import Run

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

NONE = -1
"""Index of an image where there is none."""


@dataclass
class Changes:
    """What changed over n images and C classes.

    Attributes:
        gained: (n,) classes that the last stage names and the first does not.
        lost: (n,) classes that the first names and the last does not.
        bits: (n,) how unsure the last stage is: the entropies of its C yes-or-no answers, summed, in bits.
        clearest: (C,) the image of highest logit at the first stage.
        top: (C,) the image of highest logit at the last stage.
        bottom: (C,) of the images that the last stage names with the class, the least sure; NONE where it names none.
        present: (C,) images that have the class: by truth where given, else by the last stage.
        hits: (C,) of these, those whose most likely class at the first stage it is.

    """

    gained: Ints
    lost: Ints
    bits: Floats
    clearest: Ints
    top: Ints
    bottom: Ints
    present: Ints
    hits: Ints

    @property
    def ease(self) -> Floats:
        """(C,) hits / present: how often an image with the class is first called by it; NaN where none has it."""
        share: Floats = np.full(len(self.hits), np.nan)
        np.divide(self.hits, self.present, out=share, where=self.present > 0)
        return share


class _Best:
    """The image of highest value per class, met block by block; of equal values the first."""

    def __init__(self, classes: int) -> None:
        self.value = np.full(classes, -np.inf)
        self.image = np.full(classes, NONE, dtype=np.int64)

    def meet(self, values: Floats, start: int) -> None:
        rows = values.argmax(axis=0)
        best = values[rows, np.arange(values.shape[1])]
        better = best > self.value
        self.value[better] = best[better]
        self.image[better] = rows[better] + start


def changes(
    blocks: Iterable[tuple[Floats, Floats]],
    thresholds: tuple[Floats | float, Floats | float],
    truth: npt.NDArray[np.int8] | None = None,
) -> Changes:
    """Compare two stages.

    Args:
        blocks: (n_1, C) logits of the first and of the last stage, then (n_2, C) of both, ...; at least one image.
        thresholds: of the first and of the last stage, on the probability, each one or (C,).
        truth: (n_1 + n_2 + ..., C), 1 for present. It decides `present` and `hits` alone.

    """
    each: list[tuple[Ints, Ints, Floats]] = []
    start, counts = 0, np.zeros((2, 0), dtype=np.int64)
    best: list[_Best] = []
    for before, after in blocks:
        n, classes = after.shape
        if not best:
            counts, best = np.zeros((2, classes), dtype=np.int64), [_Best(classes) for _ in range(3)]
        p = sigmoid(after)
        was, now = named(before, thresholds[0]), named(after, thresholds[1])
        each.append(((now & ~was).sum(axis=1), (was & ~now).sum(axis=1), entropy(p).sum(axis=1)))
        present = now if truth is None else truth[start : start + n] == 1
        called = np.zeros((n, classes), dtype=bool)
        called[np.arange(n), before.argmax(axis=1)] = True
        counts += np.stack([present.sum(axis=0), (present & called).sum(axis=0)])
        for kept, values in zip(best, (before, after, np.where(now, -after, -np.inf)), strict=True):
            kept.meet(values, start)
        start += n
    gained, missing, bits = (np.concatenate(parts) for parts in zip(*each, strict=True))
    return Changes(gained, missing, bits, *(kept.image for kept in best), *counts)


def entropy(p: Floats) -> Floats:
    """Entropy of a yes-or-no answer of probability p, in bits: 0 at 0 and 1, 1 at 0.5."""
    q = np.clip(p.astype(np.float64), 1e-12, 1 - 1e-12)
    return -(q * np.log2(q) + (1 - q) * np.log2(1 - q))


EACH = 20
"""Images that gained most, that lost most, and of which the last stage is least sure."""

DRAWN = 12
"""Images drawn by their digests: a sample that nobody chose."""

CLASSES = 40
"""Classes whose most and least confident images are shown; of more classes, those gained or lost most often."""

CORRECTED = 100
"""Images of each split that a human corrected; of more, the first of the manifest."""

GAINED, LOST, UNSURE, MOST_CONFIDENT, BORDERLINE, BY_CHANCE, BY_HAND = (
    "most gained",
    "most lost",
    "least sure",
    "most confident of a class",
    "barely named",
    "drawn by chance",
    "corrected by a human",
)
REASONS = (GAINED, LOST, UNSURE, MOST_CONFIDENT, BORDERLINE, BY_CHANCE, BY_HAND)


def most(values: npt.NDArray[Any], digests: npt.NDArray[Any], count: int) -> list[int]:
    """Return the indices of the `count` highest values above 0; equal ones in the order of their digests.

    So the choice depends neither on the images' names nor on their order.
    """
    order = np.lexsort((digests, -values))[:count]
    return [int(i) for i in order if values[i] > 0]


def digest_order(digests: Sequence[str] | pd.Series) -> npt.NDArray[Any]:
    """Return (n,) numbers in the order of the digests: an array of their text would take 256 bytes an image."""
    return pd.Series(digests).rank(method="dense").to_numpy()


def select_examples(
    changed: Changes,
    digests: Sequence[str] | pd.Series,
    moved: npt.NDArray[np.int64],
    share: float = 1.0,
    corrected: Sequence[int] = (),
) -> dict[int, list[str]]:
    """Choose images of one split.

    Args:
        changed: between its first and last stage, over n images.
        digests: of the n images.
        moved: (C,) by how many images each class's count changed; decides among more than CLASSES classes.
        share: of EACH, DRAWN and CLASSES that are taken, in (0, 1].
        corrected: indices of the images that a human corrected.

    Returns:
        Index of an image -> why it was chosen, in the order of REASONS; one image may have several.

    """
    ordered = digest_order(digests)
    each, drawn, classes = (max(1, round(n * share)) for n in (EACH, DRAWN, CLASSES))
    of_most = np.argsort(-moved, kind="stable")[:classes]
    examples = {
        GAINED: most(changed.gained, ordered, each),
        LOST: most(changed.lost, ordered, each),
        UNSURE: most(changed.bits, ordered, each),
        MOST_CONFIDENT: [int(changed.top[c]) for c in of_most],
        BORDERLINE: [int(changed.bottom[c]) for c in of_most],
        BY_CHANCE: [int(i) for i in np.argsort(ordered, kind="stable")[:drawn]],
        BY_HAND: list(corrected[:CORRECTED]),
    }
    chosen: dict[int, list[str]] = {}
    for reason, images in examples.items():
        for image in images:
            if image != NONE and reason not in chosen.setdefault(image, []):
                chosen[image].append(reason)
    return chosen


MOST = 10
SIDE = 160
"""Longest side of the images, in pixels."""


@dataclass(frozen=True)
class Ranked:
    """A class in the list.

    Attributes:
        name: of the class.
        hits: images with the class whose most likely class it is at the first stage.
        present: images with the class.
        ease: hits / present, in [0, 1].
        image: id of the image of highest probability at the first stage.
        source: that image as a data URI, empty where it cannot be read.

    """

    name: str
    hits: int
    present: int
    ease: float
    image: str
    source: str


def ends(changed: Changes) -> tuple[list[int], list[int]]:
    """Choose up to MOST classes from each end, easiest and hardest first; never a class twice.

    Classes that no image has are left out; of equally easy ones that with more images counts as easier.
    """
    known = np.flatnonzero(changed.present > 0)
    order = [int(c) for c in known[np.lexsort((-changed.present[known], -changed.ease[known]))]]
    count = min(MOST, len(order) // 2)
    return order[:count], order[::-1][:count]


def easiest_and_hardest(run: Run, split: str, changed: Changes) -> tuple[list[Ranked], list[Ranked]]:
    """List the easiest and the hardest classes, each with the image of highest probability at the first stage."""
    images = run.images_of(split)

    def ranked(c: int) -> Ranked:
        image = images.iloc[int(changed.clearest[c])]
        small = thumbnail(str(image["path"]), SIDE)
        return Ranked(
            run.classes[c],
            int(changed.hits[c]),
            int(changed.present[c]),
            float(changed.ease[c]),
            str(image["id"]),
            data_uri(small) if small is not None else "",
        )

    easy, hard = ends(changed)
    return [ranked(c) for c in easy], [ranked(c) for c in hard]
