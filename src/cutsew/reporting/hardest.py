"""The classes that the whole photo shows best and worst, and the clearest photo of each (paper, Table 9, Figure 10)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cutsew.reporting.changes import Changes
from cutsew.reporting.photos import data_uri, thumbnail
from cutsew.reporting.run import Run

MOST = 10
SIDE = 160
"""Longest side of the photos, in pixels."""


@dataclass(frozen=True)
class Ranked:
    """A class in the list.

    Attributes:
        name: of the class.
        hits: photos with the class whose most likely class it is at the first stage.
        present: photos with the class.
        ease: hits / present, in [0, 1].
        photo: id of the photo of which the first stage is surest.
        source: that photo as a data URI, empty where it cannot be read.

    """

    name: str
    hits: int
    present: int
    ease: float
    photo: str
    source: str


def ends(changed: Changes) -> tuple[list[int], list[int]]:
    """Choose up to MOST classes from each end, easiest and hardest first; never a class twice.

    Classes that no photo has are left out; of equally easy ones that with more photos counts as easier.
    """
    known = np.flatnonzero(changed.present > 0)
    order = [int(c) for c in known[np.lexsort((-changed.present[known], -changed.ease[known]))]]
    count = min(MOST, len(order) // 2)
    return order[:count], order[::-1][:count]


def easiest_and_hardest(run: Run, split: str, changed: Changes) -> tuple[list[Ranked], list[Ranked]]:
    """List the easiest and the hardest classes, each with the photo of which the first stage is surest."""
    photos = run.photos(split)

    def ranked(c: int) -> Ranked:
        photo = photos.iloc[int(changed.clearest[c])]
        small = thumbnail(Path(str(photo["path"])), SIDE)
        return Ranked(
            run.classes[c],
            int(changed.hits[c]),
            int(changed.present[c]),
            float(changed.ease[c]),
            str(photo["id"]),
            data_uri(small) if small is not None else "",
        )

    easy, hard = ends(changed)
    return [ranked(c) for c in easy], [ranked(c) for c in hard]
