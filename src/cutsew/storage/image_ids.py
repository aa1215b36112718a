"""Ids of an artifact's images, found again without a Python object for each: 40 bytes an image instead of 200."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.storage.zarr_reader import array_of, read

if TYPE_CHECKING:
    import zarr

Ids = Sequence[str] | pd.Index
"""Ids of n images: of a few a list, of all an index, which pandas keeps as Arrow text."""

AT_ONCE = 65536
"""Ids that are Python objects at a time."""


class ImageIds:
    """The ids of N images, each once.

    Attributes:
        names: (N,) index of text.

    """

    def __init__(self, names: pd.Index) -> None:
        self.names = names
        self._hashes: npt.NDArray[np.uint64] | None = None
        self._order = np.zeros(0, dtype=np.int64)
        self._last: tuple[pd.Index, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def find(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Return the places of n ids in [0, N), (n,); -1 for one that is not there."""
        if not isinstance(ids, pd.Index):
            return self._find(pd.Index(list(ids), dtype=self.names.dtype))
        if self._last is None or self._last[0] is not ids:  # an index never changes
            self._last = ids, self._find(ids)
        return self._last[1]

    def _find(self, ids: pd.Index) -> npt.NDArray[np.int64]:
        if self.names.equals(ids):
            return np.arange(len(ids))
        if self._hashes is None:
            hashes = text_hashes(self.names)
            self._order = np.argsort(hashes, kind="stable")
            self._hashes = hashes[self._order]
        if (self._hashes[1:] == self._hashes[:-1]).any():  # two ids with one hash: once in 10**7 tables of 10**6
            return np.asarray(self.names.get_indexer(ids), dtype=np.int64)
        if not len(self._hashes):
            return np.full(len(ids), -1)
        places = np.minimum(np.searchsorted(self._hashes, text_hashes(ids)), len(self._hashes) - 1)
        rows = self._order[places]
        same = np.asarray(self.names.take(rows) == ids, dtype=bool)
        return np.where(same, rows, -1)


def image_ids(group: "zarr.Group") -> pd.Index:
    """Read the coordinate `image`, a chunk at a time."""
    array = array_of(group, "image")
    starts = range(0, max(1, array.shape[0]), AT_ONCE)
    parts = (read(array, slice(start, start + AT_ONCE)) for start in starts)
    names = [pd.Index([str(name) for name in part], dtype=str) for part in parts]
    return names[0].append(names[1:])


def text_hashes(texts: pd.Index | pd.Series) -> npt.NDArray[np.uint64]:
    """Hash n texts to 64 bits each, a part of them at a time."""
    index, parts = pd.Index(texts), [np.zeros(0, dtype=np.uint64)]
    for start in range(0, len(index), AT_ONCE):
        part = index[start : start + AT_ONCE].to_numpy(dtype=object)
        parts.append(pd.util.hash_array(part, categorize=False))
    return np.concatenate(parts)
