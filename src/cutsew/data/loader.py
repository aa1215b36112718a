"""Reading images for the student: a bounded cache, errors that survive worker processes, images in batches."""

import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset

from cutsew.data.images import read_image
from cutsew.errors import UserError
from cutsew.method.crops import Square
from cutsew.method.student_views import NUM_VIEWS, Pixels, resized_view, tile_views
from cutsew.storage.manifest import batched_slices

T = TypeVar("T")
Look = Callable[[Image.Image, int, str], Pixels]
"""Cuts views of an image, of a side in pixels and by an interpolation; picklable."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - asked for its size alone

CACHE_BYTES = 512 * 2**20
"""Decoded images kept in memory, over all workers together."""


class Images:
    """Decoded images by path; those used last are kept while they fit.

    Args:
        budget: bytes of decoded pixels to keep.

    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held = 0
        self._kept: OrderedDict[str, Image.Image] = OrderedDict()

    def read(self, path: str) -> Image.Image:
        """Return an image as RGB; callers must not change it.

        Raises:
            BadImage: it cannot be read.

        """
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        image = read_image(path)
        self._kept[path] = image
        self._held += _bytes(image)
        while self._held > self._budget:
            self._held -= _bytes(self._kept.popitem(last=False)[1])
        return image


@dataclass(frozen=True)
class Failure:
    """Bad input found in a worker process; torch would wrap the exception in a traceback."""

    message: str


class Guarded(Dataset[Any]):
    """A dataset whose items may fail with a UserError, passed on as a Failure."""

    def __init__(self, item: Callable[[Any], Any], length: int) -> None:
        self._item = item
        self._length = length

    def __len__(self) -> int:
        """Count the items."""
        return self._length

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - as the sampler's keys are
        """Make one item."""
        try:
            return self._item(key)
        except UserError as error:
            return Failure(str(error))


class Piped:
    """A batch without tensors, which pickle copies through a pipe; torch would put them into shared memory."""

    def __init__(self, batch: Any) -> None:  # noqa: ANN401 - what `join` makes
        self._batch = tree_map(lambda leaf: _Values(leaf.numpy()) if isinstance(leaf, Tensor) else leaf, batch)

    def unpack(self) -> Any:  # noqa: ANN401 - what `join` makes
        """Return the batch."""
        return tree_map(lambda leaf: torch.from_numpy(leaf.array) if isinstance(leaf, _Values) else leaf, self._batch)


class _Values:
    """What was a tensor."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array


class Collate:
    """Joins items to a batch, unless one failed.

    A worker process hands its batches over in shared memory. Where that does not suffice, as in a Docker container
    with its default of 64 MB, torch loses the batch and waits for it forever, so such a batch goes through the pipe.

    Args:
        join: makes a batch of its items.
        workers: processes that do so.

    """

    def __init__(self, join: Callable[[list[Any]], Any], workers: int = 0) -> None:
        self._join, self._workers = join, workers

    def __call__(self, items: list[Any]) -> Any:  # noqa: ANN401 - what `join` makes, or its Piped
        """Join the items, or return the first failure."""
        failure = next((item for item in items if isinstance(item, Failure)), None)
        if failure is not None:
            return failure
        batch = self._join(items)
        if self._workers and SHARED_MEMORY.is_dir():
            size = sum(leaf.nbytes for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
            if shutil.disk_usage(SHARED_MEMORY).free < (self._workers + 1) * size:  # all may do so at the same time
                return Piped(batch)
        return batch


def batches(
    item: Callable[[Any], T],
    length: int,
    keys: Iterable[list[Any]],
    join: Callable[[list[T]], Any],
    workers: int,
) -> Iterator[Any]:
    """Make batches in order, in worker processes where there are any.

    Args:
        item: makes one item of a key; picklable.
        length: number of items that there are.
        keys: the keys of each batch.
        join: makes a batch of its items; picklable.
        workers: processes; 0 works in this one.

    Raises:
        UserError: an item is bad.

    """
    loader: DataLoader[Any] = DataLoader(
        Guarded(item, length),
        batch_sampler=cast(Any, keys),
        num_workers=workers,
        collate_fn=Collate(join, workers),
        generator=torch.Generator(),  # its own, so that torch's global one is left alone
        # By a thread, so that a GPU's process need not receive batches itself.
        pin_memory=torch.cuda.is_initialized(),  # type: ignore[no-untyped-call]
    )
    for batch in loader:
        if isinstance(batch, Failure):
            raise UserError(batch.message)
        yield batch.unpack() if isinstance(batch, Piped) else batch


class PlainImage:
    """Makes what the student sees of an image that is not sewn, as `look` cuts it: (..., 3, S, S) uint8."""

    def __init__(self, paths: Sequence[str], square: Square, look: Look = resized_view) -> None:
        self._paths = paths
        self._square = square
        self._look = look

    def __call__(self, index: int) -> Tensor:
        """Read and cut image number `index`."""
        return torch.from_numpy(self._look(read_image(self._paths[index]), *self._square))


def plain_batches(paths: Sequence[str], square: Square, batch_size: int, workers: int) -> Iterator[Tensor]:
    """Give the weak views of images in order, (B, 3, S, S) uint8.

    Args:
        paths: of the images.
        square: the student's.
        batch_size: images in a batch.
        workers: processes that decode.

    Raises:
        BadImage: an image cannot be read.

    """
    return batches(PlainImage(paths, square), len(paths), in_order(len(paths), batch_size), torch.stack, workers)


def tiled_batches(paths: Sequence[str], square: Square, batch_size: int, workers: int) -> Iterator[Tensor]:
    """Give the wholes and the tiles of images in order, (B, 5, 3, S, S) uint8.

    A batch holds `batch_size` views at most, and one image at least.

    Raises:
        BadImage: an image cannot be read.

    """
    keys = in_order(len(paths), max(1, batch_size // NUM_VIEWS))
    return batches(PlainImage(paths, square, tile_views), len(paths), keys, torch.stack, workers)


def in_order(images: int, size: int) -> list[list[int]]:
    """Cut n images, by their numbers, into batches of `size`."""
    return [list(range(part.start, part.stop)) for part in batched_slices(images, size)]


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * 3
