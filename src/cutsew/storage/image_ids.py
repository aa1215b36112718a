"""Ids of an artifact's images, found again without a Python object for each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.storage.zarr_reader import array_of, read

if TYPE_CHECKING:
    import pyarrow as pa
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
        self._last: tuple[pd.Index, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def find(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Return the places of n ids in [0, N), (n,); -1 for one that is not there."""
        if not isinstance(ids, pd.Index):
            return self._find(pd.Index(list(ids), dtype=str))
        if self._last is None or self._last[0] is not ids:  # an index never changes
            self._last = ids, self._find(ids)
        return self._last[1]

    def _find(self, ids: pd.Index) -> npt.NDArray[np.int64]:
        from pyarrow import compute  # noqa: PLC0415 - slow to import

        if self.names.equals(ids):
            return np.arange(len(ids))
        # pandas' get_indexer would make a Python object of each id.
        found = compute.index_in(_arrow(ids), value_set=_arrow(self.names))
        return found.fill_null(-1).to_numpy().astype(np.int64)  # type: ignore[no-any-return]


def image_ids(group: "zarr.Group") -> pd.Index:
    """Read the coordinate `image`, a chunk at a time."""
    array = array_of(group, "image")
    starts = range(0, max(1, array.shape[0]), AT_ONCE)
    parts = (read(array, slice(start, start + AT_ONCE)) for start in starts)
    names = [pd.Index([str(name) for name in part], dtype=str) for part in parts]
    return names[0].append(names[1:])


def _arrow(texts: pd.Index) -> "pa.Array":
    import pyarrow as pa  # noqa: PLC0415 - slow to import

    return pa.array(texts, type=pa.large_string())
