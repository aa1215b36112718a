"""Ids of images are found again, whatever their order; an id that is not there is said to be missing."""

import numpy as np
import pandas as pd
import pytest

from cutsew.storage import image_ids
from cutsew.storage.image_ids import ImageIds
from cutsew.storage.zarr_layout import label_spec
from cutsew.storage.zarr_reader import open_group
from cutsew.storage.zarr_writer import write_group

NAMES = ["b.jpg", "ü 1", "", "a,\n", "c", "B.jpg"]


def _found(names: list[str], ids: list[str]) -> list[list[int]]:
    """Look up a list, and an index twice."""
    held, index = ImageIds(pd.Index(names, dtype=str)), pd.Index(ids, dtype=str)
    return [held.find(asked).tolist() for asked in (ids, index, index)]


@pytest.mark.parametrize(
    ("ids", "places"),
    [
        (NAMES, [0, 1, 2, 3, 4, 5]),
        (["B.jpg", "a,\n", "b.jpg"], [5, 3, 0]),
        (["c", "c"], [4, 4]),
        (["", "d"], [2, -1]),
        ([], []),
    ],
)
def test_ids_are_found(ids: list[str], places: list[int]) -> None:
    assert _found(NAMES, ids) == [places] * 3


def test_no_id_is_found_among_none() -> None:
    assert _found([], ["a"]) == [[-1]] * 3


def test_lookups_do_not_mix() -> None:
    held = ImageIds(pd.Index(NAMES, dtype=str))
    first, second = pd.Index(["c"], dtype=str), pd.Index(["b.jpg"], dtype=str)
    assert [held.find(asked).tolist() for asked in (first, second, first)] == [[4], [0], [4]]


def test_ids_are_read_by_chunks(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_ids, "AT_ONCE", 4)
    z = np.zeros((len(NAMES), 1), dtype=np.float32)
    write_group(tmp_path / "z.zarr", {"z": (label_spec(*z.shape), z)}, {"image": NAMES, "class": ["x"]})
    assert image_ids.image_ids(open_group(tmp_path / "z.zarr")).tolist() == NAMES
