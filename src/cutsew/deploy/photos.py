"""Photos that no manifest lists: found in a folder or named alone, read one after the other, bad ones told of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from cutsew.data import folder
from cutsew.data.images import SUFFIXES, BadImage
from cutsew.errors import UserError
from cutsew.numerics.views import Square
from cutsew.training.photos import PlainPhoto, batches, in_order


@dataclass(frozen=True)
class Found:
    """Photos, and what lies beside them.

    Attributes:
        names: one per photo: its path relative to the folder; of a single photo, the path as given.
        paths: of the files.
        leftovers: all else that is there.

    """

    names: list[str]
    paths: list[str]
    leftovers: list[folder.Leftover] = field(default_factory=list)


def find(where: Path) -> Found:
    """Find the photos of a folder, at any depth and in the order of their names, or take the one that is named.

    Raises:
        UserError: there is none.

    """
    if where.is_file():
        return Found([str(where)], [str(where)])
    if not where.is_dir():
        raise UserError(f"{where}: no such photo or folder; name one that is there")
    leftovers: list[folder.Leftover] = []
    names = folder.list_photos(where, leftovers, tolerant=True)
    if not names:
        raise UserError(f"{where}: holds no photos ({' '.join(SUFFIXES)}); name a folder that does")
    return Found(names, [str(where / name) for name in names], leftovers)


def readable(paths: Sequence[str], square: Square, batch_size: int, workers: int) -> Iterator[list[Tensor | str]]:
    """Read photos in batches, in order.

    Args:
        paths: of the photos.
        square: the student's.
        batch_size: photos in a batch.
        workers: processes that decode; 0 for none beside this one.

    Yields:
        For each photo of a batch, its (3, S, S) uint8 pixels, or why it cannot be read.

    """
    yield from batches(_Photo(paths, square), len(paths), in_order(len(paths), batch_size), list, workers)


class _Photo:
    """Makes one photo's pixels, or the reason why it has none."""

    def __init__(self, paths: Sequence[str], square: Square) -> None:
        self._photo = PlainPhoto(paths, square)

    def __call__(self, index: int) -> Tensor | str:
        try:
            return self._photo(index)
        except BadImage as error:
            return error.reason
