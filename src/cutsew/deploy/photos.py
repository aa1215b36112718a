"""Photos that no manifest lists: found in a folder or named alone, read one after the other, bad ones told of."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cutsew.data import folder
from cutsew.data.images import BadImage
from cutsew.errors import UserError
from cutsew.training.photos import PlainPhoto, batches, in_order


@dataclass(frozen=True)
class Found:
    """Photos, and what lies beside them.

    Attributes:
        names: one per photo: its path relative to the folder; of a single photo, the path as given.
        paths: of the files.
        hidden: hidden files and folders that were passed over.
        others: files that are no photos, by their suffix.

    """

    names: list[str]
    paths: list[str]
    hidden: int
    others: int


def find(where: Path) -> Found:
    """Find the photos of a folder, at any depth and in the order of their names, or take the one that is named.

    Raises:
        UserError: there is none.

    """
    if where.is_file():
        return Found([str(where)], [str(where)], 0, 0)
    if not where.is_dir():
        raise UserError(f"{where}: no such photo or folder; name one that is there")
    names = folder.list_photos(where)
    if not names:
        raise UserError(f"{where}: holds no photos ({' '.join(folder.SUFFIXES)}); name a folder that does")
    return Found(names, [str(where / name) for name in names], *_passed_over(where))


def readable(paths: Sequence[str], size: int, batch_size: int, workers: int) -> Iterator[list[Tensor | str]]:
    """Read photos in batches, in order.

    Args:
        paths: of the photos.
        size: S, side of the student's input in pixels.
        batch_size: photos in a batch.
        workers: processes that decode; 0 for none beside this one.

    Yields:
        For each photo of a batch, its (3, S, S) uint8 pixels, or why it cannot be read.

    """
    yield from batches(_Photo(paths, size), len(paths), in_order(len(paths), batch_size), list, workers)


class _Photo:
    """Makes one photo's pixels, or the reason why it has none."""

    def __init__(self, paths: Sequence[str], size: int) -> None:
        self._photo = PlainPhoto(paths, size)

    def __call__(self, index: int) -> Tensor | str:
        try:
            return self._photo(index)
        except BadImage as error:
            return error.reason


def _passed_over(where: Path) -> tuple[int, int]:
    """Count hidden files and folders, and files of other kinds; what links lead to is not looked into."""
    hidden = others = 0
    for _, folders, files in os.walk(where):
        hidden += sum(name.startswith(".") for name in (*folders, *files))
        others += sum(not name.startswith(".") and not name.lower().endswith(folder.SUFFIXES) for name in files)
        folders[:] = [name for name in folders if not name.startswith(".")]
    return hidden, others
