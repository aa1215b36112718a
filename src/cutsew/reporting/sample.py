"""Which photos are worth looking at. Truth plays no part in the choice."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.reporting.changes import NONE, Changes

EACH = 20
"""Photos that gained most, that lost most, and of which the last stage is least sure."""

DRAWN = 12
"""Photos drawn by their digests: a sample that nobody chose."""

CLASSES = 40
"""Classes whose surest and least sure photo are shown; of more classes, those gained or lost most often."""

CORRECTED = 100
"""Photos of each split that a human corrected; of more, the first of the manifest."""

GAINED, LOST, UNSURE, SUREST, BARELY, BY_CHANCE, BY_HAND = (
    "most gained",
    "most lost",
    "least sure",
    "surest of a class",
    "barely named",
    "drawn by chance",
    "corrected by a human",
)
REASONS = (GAINED, LOST, UNSURE, SUREST, BARELY, BY_CHANCE, BY_HAND)


def most(values: npt.NDArray[Any], digests: npt.NDArray[Any], count: int) -> list[int]:
    """Return the indices of the `count` highest values above 0; equal ones in the order of their digests.

    So the choice depends neither on the photos' names nor on their order.
    """
    order = np.lexsort((digests, -values))[:count]
    return [int(i) for i in order if values[i] > 0]


def worth_looking_at(
    changed: Changes,
    digests: Sequence[str],
    moved: npt.NDArray[np.int64],
    share: float = 1.0,
    corrected: Sequence[int] = (),
) -> dict[int, list[str]]:
    """Choose photos of one split.

    Args:
        changed: between its first and last stage, over n photos.
        digests: of the n photos.
        moved: (C,) by how many photos each class's count changed; decides among more than CLASSES classes.
        share: of EACH, DRAWN and CLASSES that are taken, in (0, 1].
        corrected: indices of the photos that a human corrected.

    Returns:
        Index of a photo -> why it was chosen, in the order of REASONS; one photo may have several.

    """
    ordered = np.asarray(digests, dtype=str)
    each, drawn, classes = (max(1, round(n * share)) for n in (EACH, DRAWN, CLASSES))
    of_most = np.argsort(-moved, kind="stable")[:classes]
    found = {
        GAINED: most(changed.gained, ordered, each),
        LOST: most(changed.lost, ordered, each),
        UNSURE: most(changed.bits, ordered, each),
        SUREST: [int(changed.top[c]) for c in of_most],
        BARELY: [int(changed.bottom[c]) for c in of_most],
        BY_CHANCE: [int(i) for i in np.argsort(ordered, kind="stable")[:drawn]],
        BY_HAND: list(corrected[:CORRECTED]),
    }
    chosen: dict[int, list[str]] = {}
    for reason, photos in found.items():
        for photo in photos:
            if photo != NONE and reason not in chosen.setdefault(photo, []):
                chosen[photo].append(reason)
    return chosen
