"""Reading Zarr groups that stages wrote: opened only if complete, and no damaged chunk is taken for a value."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cutsew.errors import UserError, first_line
from cutsew.method.fuse import Extremes
from cutsew.storage.tables import AGAIN
from cutsew.storage.zarr_layout import EXTREMES, Array, folder_of, refuse_missing, spec_of

if TYPE_CHECKING:
    import zarr

DAMAGE = (ValueError, TypeError, KeyError, RuntimeError, OSError, AttributeError, BufferError)
"""What zarr and its codecs raise at damaged metadata and chunks."""


def open_group(path: Path) -> "zarr.Group":
    """Open a group for reading, refusing it where it or one of its chunk files is missing.

    Args:
        path: the group's folder or the `zarr.json` in it.

    Raises:
        UserError: not a sealed group, or a chunk is lost.

    """
    import zarr
    from zarr.storage import LocalStore

    folder = folder_of(path)
    if not folder.joinpath("zarr.json").is_file():
        raise UserError(f"{folder}: not a finished Zarr; run the workflow again to make it")
    try:
        group = zarr.open_group(LocalStore(folder, read_only=True), mode="r", zarr_format=3)
        arrays = dict(group.arrays())
    except DAMAGE as error:
        raise UserError(f"{folder}: not a Zarr that this version reads ({first_line(error)}); {AGAIN}") from None
    if "digest" not in group.attrs:
        raise UserError(f"{folder}: not a finished Zarr; run the workflow again to make it")
    for name, array in arrays.items():
        refuse_missing(folder / name, spec_of(array))
        _refuse_misfit(folder / name, array, arrays)
    return group


def attribute(group: "zarr.Group", name: str) -> Any:  # noqa: ANN401  # any JSON value
    """Return an attribute of a group.

    Raises:
        UserError: the group has no such attribute.

    """
    if name not in group.attrs:
        raise UserError(f"{_path_of(group)}: has no attribute {name}, so it was written by another version; {AGAIN}")
    return group.attrs[name]


def array_of(group: "zarr.Group", name: str) -> "zarr.Array[Any]":
    """Return an array of a group.

    Raises:
        UserError: the group has no such array.

    """
    import zarr

    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise UserError(f"{_path_of(group)}: has no array {name}, so it was written by another version; {AGAIN}")
    return array


def read(array: "zarr.Array[Any]", index: Any = ...) -> Array:  # noqa: ANN401
    """Read an array, or the part of it that an index names, into memory.

    Raises:
        UserError: a chunk is damaged.

    """
    return _undamaged(array, lambda: array[index])


def read_rows(array: "zarr.Array[Any]", *rows: Any) -> Array:  # noqa: ANN401
    """Read rows that are named one by one, by an index along each dimension; the last dimensions whole.

    Raises:
        UserError: a chunk is damaged.

    """
    index = (*rows, *(slice(None) for _ in range(array.ndim - len(rows))))
    return _undamaged(array, lambda: array.oindex[index])


def read_crops(group: "zarr.Group", rows: slice, passes: int | None = None) -> Array | Extremes:
    """Read the crops' logits of some images from logits.zarr: (M, n, C) of the first `passes`, or their extremes."""
    if "highest" not in group:
        return read(array_of(group, "crops"), (slice(passes), rows))
    found = {name: read(array_of(group, name), rows) for name in EXTREMES if name in group}
    return Extremes(found["highest"], found["highest_view"], found.get("lowest"), found.get("lowest_view"))


def _undamaged(array: "zarr.Array[Any]", act: Callable[[], Any]) -> Array:
    try:
        return np.asarray(act())
    except DAMAGE as error:
        path = _path_of(array)
        raise UserError(
            f"{path}: a chunk of it is damaged ({first_line(error)}); `cutsew verify {path.parent.parent}` names it "
            "and the command that makes it again"
        ) from None


def _path_of(node: "zarr.Array[Any] | zarr.Group") -> Path:
    from zarr.storage import LocalStore

    store = node.store
    return store.root / node.path if isinstance(store, LocalStore) else Path(node.path)


def labels_of(group: "zarr.Group", dimension: str) -> list[str]:
    """Read a coordinate of text labels, such as `image` or `class`."""
    return [str(label) for label in read(array_of(group, dimension))]


def _refuse_misfit(folder: Path, array: "zarr.Array[Any]", arrays: "Mapping[str, zarr.Array[Any]]") -> None:
    """Refuse an array that is not as long as the coordinates of its dimensions."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    for name, length in zip(names, array.shape, strict=False):
        if name in arrays and arrays[name].shape != (length,):
            raise UserError(f"{folder}: has {length} x {name}, where there are {arrays[name].shape[0]}; {AGAIN}")
