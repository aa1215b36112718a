"""Checking many photos at once, and giving each its lasting row."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cutsew.data.accounting import explain
from cutsew.data.folder import Leftover
from cutsew.data.images import BadImage, Inspection, inspect

BLOCK = 1024
"""Photos handed to the threads at a time, so that what waits stays small however many there are."""


def inspect_all(paths: Sequence[str], workers: int) -> Iterator[Inspection | BadImage]:
    """Inspect photos in order; a bad one gives its error instead of raising it.

    Args:
        paths: of the photos.
        workers: threads (decoding and digesting leave Python's lock alone); 0 for none beside this one. At most this
            many photos are in memory.

    """
    if workers < 2:
        yield from map(_inspect, paths)
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), BLOCK):
            yield from pool.map(_inspect, paths[start : start + BLOCK])


def explain_all(leftovers: Sequence[Leftover], workers: int) -> list[Leftover]:
    """Say of files of other kinds what they are; the first bytes of some are read.

    Args:
        leftovers: what a walk took for no photo.
        workers: threads that read; 0 for none beside this one.

    """
    if workers < 2:
        return [explain(left) for left in leftovers]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(explain, leftovers))


def places(listed: Sequence[str], known: Sequence[str]) -> list[int]:
    """Order listed photos so that known ones keep their order and new ones follow.

    Args:
        listed: ids, unique.
        known: ids in the order of an earlier manifest, unique; those no longer listed are passed over.

    Returns:
        Indices into `listed`: a permutation.

    """
    index = {name: i for i, name in enumerate(listed)}
    kept = [index.pop(name) for name in known if name in index]
    return kept + list(index.values())


def _inspect(path: str) -> Inspection | BadImage:
    try:
        return inspect(Path(path))
    except BadImage as error:
        return error
