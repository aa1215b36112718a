"""Scores made elsewhere, read by slices: the answers of any other model, taken instead of encoding.

Three layouts, each with ids of the images, names of the classes and one or more arrays of shape (N, C), or (M, N, C)
for M passes:

- `.npz`: arrays `ids` (N,) and `classes` (C,), text, and the named arrays. An array is read whole, one at a time.
- Zarr v3 (a folder): arrays `ids` and `classes`, or coordinates `image` and `class`, and the named arrays, read by
  slices. Every chunk must be there, those of equal values too (`write_empty_chunks`), so that none can be lost unseen.
- `.parquet`: one row per image, column `id`, and columns `<array>/<class>`, each array (N, C).

An id stands for the image with that manifest id, or else for the one whose file name without suffix it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.lib
import pyarrow.parquet as pq
import zarr

from cutsew.config.networks import ScoresFileConfig
from cutsew.errors import UserError, lacks_classes
from cutsew.storage.image_ids import Ids, ImageIds

Array = npt.NDArray[Any]
SETTING = "teacher.scores.file"
DAMAGE = (OSError, ValueError, RuntimeError, TypeError, IndexError, EOFError, BadZipFile, pyarrow.lib.ArrowException)
"""What the readers raise at files that are damaged or of another kind than their name says."""

TOLERANCE = 1e-5
"""How far rounding may take a probability out of [0, 1]."""


class Source(Protocol):
    """A file of scores."""

    ids: list[str]
    classes: list[str]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of an array, None if there is not one of that name."""

    def read(self, name: str, k: int | None, rows: Array) -> Array:
        """Rows of an (N, C) array, or of pass k of an (M, N, C) array: (len(rows), C)."""


class Scores:
    """Scores of a teacher, checked, in the classes' wanted order.

    Args:
        settings: of the `scores` teacher.
        classes: wanted classes, in order; None for the file's own.

    Attributes:
        ids: of its images, distinct.
        passes: M, over all arrays of crops.

    Raises:
        UserError: the file is not there or damaged, lacks an array or a class, holds an id twice, or shapes differ.

    """

    def __init__(self, settings: ScoresFileConfig, classes: Sequence[str] | None = None) -> None:
        if settings.file is None:
            raise UserError(f"{SETTING}: not set; name the file of the scores")
        self._file = settings.file
        self._source = _open(settings.file, settings.zero_shot)
        self._logits = settings.values == "logits"
        self._zero_shot = settings.zero_shot
        self.ids = self._source.ids
        _refuse_twice(self.ids, "id", settings.file)
        _refuse_twice(self._source.classes, "class", settings.file)
        class_names = self._source.classes if classes is None else list(classes)
        self._columns = self._find(class_names)
        self._classes = class_names
        self._passes: list[tuple[str, int | None]] = []
        if self._check(settings.zero_shot, "zero_shot") is not None:
            raise UserError(f"teacher.scores.zero_shot: {settings.zero_shot} holds passes; name an (N, C) array")
        for name in settings.crops:
            count = self._check(name, "crops")
            self._passes += [(name, None)] if count is None else [(name, k) for k in range(count)]

    @property
    def passes(self) -> int:
        """M, passes over all arrays of crops."""
        return len(self._passes)

    def zero_shot(self, rows: Array) -> Array:
        """Read the whole images' scores of some rows of the file: (len(rows), C) float64."""
        return self._read(self._zero_shot, None, rows)

    def crops(self, k: int, rows: Array) -> Array:
        """Read pass k's scores of some rows of the file: (len(rows), C) float64."""
        return self._read(*self._passes[k], rows)

    def rows_of(self, images: Ids) -> Array:
        """Return the row of each image by its id, or else by its file's stem; -1 where the file has none."""
        known = ImageIds(pd.Index(self.ids, dtype=str))
        rows = known.find(images).copy()
        others = np.flatnonzero(rows < 0).tolist()
        rows[others] = known.find([PurePath(images[row]).stem for row in others])
        return rows

    def _damaged(self, name: str) -> UserError:
        return UserError(f"{SETTING}: {self._file}: array {name} is damaged or holds no numbers; fix it")

    def _find(self, class_names: list[str]) -> Array:
        known = {name: column for column, name in enumerate(self._source.classes)}
        missing = [name for name in class_names if name not in known]
        if missing:
            others = [name for name in self._source.classes if name not in set(class_names)]
            raise lacks_classes(f"{SETTING}: {self._file}", missing, len(class_names), others)
        return np.array([known[name] for name in class_names], dtype=np.int64)

    def _check(self, name: str, setting: str) -> int | None:
        """Return M of an (M, N, C) array, None for an (N, C) array."""
        try:
            shape = self._source.shape(name)
        except DAMAGE:
            raise self._damaged(name) from None
        if shape is None:
            raise UserError(f"teacher.scores.{setting}: {self._file} has no array {name}; name one that it has")
        expected = (len(self.ids), len(self._source.classes))
        if shape[-2:] != expected or len(shape) not in (2, 3):
            raise UserError(
                f"teacher.scores.{setting}: array {name} of {self._file} is {shape}, should end in {expected}, its ids"
                " by its classes; fix the file"
            )
        return shape[0] if len(shape) == 3 else None

    def _read(self, name: str, k: int | None, rows: Array) -> Array:
        try:
            result = self._source.read(name, k, rows)[:, self._columns]
            if result.dtype.kind in "cmM":
                raise TypeError("complex numbers or dates")  # noqa: TRY301
            values = np.asarray(result, dtype=np.float64)
        except DAMAGE:
            raise self._damaged(name) from None
        bad = ~np.isfinite(values)
        why = "not finite"
        if not bad.any() and not self._logits:
            bad = (values < -TOLERANCE) | (values > 1 + TOLERANCE)
            why = "no probability; set teacher.scores.values: logits if these are logits"
        if bad.any():
            row, column = np.argwhere(bad)[0]
            which = name if k is None else f"{name}, pass {k}"
            location = f"array {which}, image {self.ids[rows[row]]}, class {self._classes[column]}"
            raise UserError(f"{SETTING}: {self._file}: {location}: {values[row, column]:.6g} is {why}")
        return values


def read_ids(path: Path, settings: ScoresFileConfig) -> list[str]:
    """Read the ids of a file of scores, in its order.

    Raises:
        UserError: the file is not there or damaged, or holds an id twice.

    """
    ids = _open(path, settings.zero_shot).ids
    _refuse_twice(ids, "id", path)
    return ids


def usable_ids(images: Sequence[str], settings: ScoresFileConfig) -> list[str]:
    """Return those of the images' ids that have scores: what `missing: drop` leaves in the manifest.

    Raises:
        UserError: as `Scores`.

    """
    rows = Scores(settings).rows_of(images)
    return [image for image, row in zip(images, rows, strict=True) if row >= 0]


def _open(path: Path, zero_shot: str) -> Source:
    if not path.exists():
        raise UserError(f"{SETTING}: {path}: no such file; give the path of the scores")
    try:
        if path.is_dir():
            return _Zarr(path)
        if path.suffix == ".npz":
            return _Npz(path)
        if path.suffix == ".parquet":
            return _Parquet(path, zero_shot)
    except KeyError as error:
        raise UserError(f"{SETTING}: {path} has no {error.args[0]}; add it") from None
    except DAMAGE:
        raise UserError(f"{SETTING}: {path}: damaged, or not the kind of file its name says; regenerate it") from None
    raise UserError(f"{SETTING}: {path}: not a kind that can be read; give .npz, a Zarr folder or .parquet")


def _texts(values: Array) -> list[str]:
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
    "".join(texts).encode()  # numpy's texts may hold what is no Unicode, which raises a ValueError
    return texts


def _refuse_twice(names: list[str], what: str, path: Path) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        duplicate = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UserError(f"{SETTING}: {path} holds the {what} {duplicate} more than once; keep one")


class _Npz:
    def __init__(self, path: Path) -> None:
        self._file: Mapping[str, Array] = np.load(path, allow_pickle=False)
        if not isinstance(self._file, Mapping):
            raise TypeError("one array, not several by name")
        self.ids, self.classes = _texts(self._file["ids"]), _texts(self._file["classes"])
        self._last: tuple[str, Array] | None = None

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._whole(name).shape if name in self._file else None

    def read(self, name: str, k: int | None, rows: Array) -> Array:
        whole = self._whole(name)
        return (whole if k is None else whole[k])[rows]

    def _whole(self, name: str) -> Array:
        if self._last is None or self._last[0] != name:
            self._last = (name, self._file[name])
        return self._last[1]


class _Zarr:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._group = zarr.open_group(path, mode="r", zarr_format=3)
        self.ids, self.classes = self._labels("ids", "image"), self._labels("classes", "class")

    def shape(self, name: str) -> tuple[int, ...] | None:
        array = self._group.get(name)
        if not isinstance(array, zarr.Array):
            return None
        missing = array.nchunks - array.nchunks_initialized
        if missing:
            raise UserError(
                f"{SETTING}: {self._path}: array {name} lacks {missing} of its {array.nchunks} chunks;"
                " rewrite it with write_empty_chunks"
            )
        return array.shape

    def read(self, name: str, k: int | None, rows: Array) -> Array:
        array: Any = self._group[name]
        return np.asarray(array.oindex[rows] if k is None else array.oindex[k, rows])

    def _labels(self, name: str, coordinate: str) -> list[str]:
        array = self._group.get(name, self._group.get(coordinate))
        if not isinstance(array, zarr.Array):
            raise KeyError(name)
        return _texts(np.asarray(array[...]))


class _Parquet:
    def __init__(self, path: Path, zero_shot: str) -> None:
        self._path = path
        self._columns = pq.read_schema(path).names
        if "id" not in self._columns:
            raise KeyError("column id")
        self.ids = [str(name) for name in pq.read_table(path, columns=["id"])["id"].to_pylist()]
        start = f"{zero_shot}/"
        self.classes = [name.removeprefix(start) for name in self._columns if name.startswith(start)]
        self._last: tuple[str, Array] | None = None

    def shape(self, name: str) -> tuple[int, ...] | None:
        count = sum(column.startswith(f"{name}/") for column in self._columns)
        return (len(self.ids), count) if count else None

    def read(self, name: str, k: int | None, rows: Array) -> Array:  # noqa: ARG002  # its arrays hold one pass
        if self._last is None or self._last[0] != name:
            expected = [f"{name}/{label}" for label in self.classes]
            missing = [column for column in expected if column not in self._columns]
            if missing:
                raise UserError(f"{SETTING}: {self._path} has no column {missing[0]}; add it")
            table = pq.read_table(self._path, columns=expected)
            self._last = (name, np.stack([table[column].to_numpy() for column in expected], axis=1))
        return self._last[1][rows]
