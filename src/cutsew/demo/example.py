"""The captioned scenes that the tiny CLIP learns from. Free of torch, so that the processes that draw start quickly."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from cutsew.demo.captions import caption
from cutsew.demo.scene import scene
from cutsew.numerics.draw import generator
from cutsew.numerics.views import crop_boxes, cut
from cutsew.owner import end_with_parent

SIDE = 96
"""Side of the square input in pixels."""

OTHERS = (0.25, 0.3, 0.25, 0.2)
"""Probability of 0 to 3 smaller objects beside the main one."""

SECOND_NAMED = 0.15
"""Probability that the caption names a second object too."""

AREA = (0.25, 1.0)
"""Share of a scene's area that its training view keeps. Half-seen and missing objects teach doubt: without them the
model is certain of every crop."""

Example = tuple[npt.NDArray[np.uint8], str]


def example(index: int, seed: int) -> Example:
    """Draw one training scene; return a random view of it, (96, 96, 3) uint8, and the whole scene's caption."""
    rng = generator("tiny_clip", seed, index)
    photo, things = scene(rng, OTHERS)
    names = [thing.name for thing in things]
    named = names[:2] if rng.uniform() < SECOND_NAMED else names[:1]
    box = crop_boxes("view", *photo.size, [index], seed=seed, area=AREA, aspect=(3 / 4, 4 / 3), flip=0)[0]
    return cut(photo, box, SIDE).transpose(1, 2, 0), caption(named)


def examples(count: int, seed: int, workers: int) -> Iterator[Example]:
    """Draw many training scenes in several processes; give them in order, whatever the number of processes."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        yield from pool.map(partial(example, seed=seed), range(count), chunksize=50)
