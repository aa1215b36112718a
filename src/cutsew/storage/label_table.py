"""The table of a run's labels, labels.csv and labels.parquet: a row per photo, written slice by slice.

Columns: id; path; split (train or test); stage, whose labels they are; labels, joined by `;`, a human's corrections
applied; model_labels, the stage's own; by_human, the classes that a human set or crossed out; and `p_<class>`, the
stage's probability of each class in [0, 1], whatever a human said.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from cutsew.method.correct import LEFT
from cutsew.storage.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd

FILE = "labels.csv"
LABELS, MODEL_LABELS, BY_HUMAN = "labels", "model_labels", "by_human"
COLUMNS = ("id", "path", "split", "stage", LABELS, MODEL_LABELS, BY_HUMAN)
SEPARATOR = ";"


class Rows(Protocol):
    """Labels of n photos: see `audit.label_export.Batch`."""

    @property
    def stage(self) -> str: ...  # noqa: D102
    @property
    def photos(self) -> "pd.DataFrame": ...  # noqa: D102
    @property
    def named(self) -> npt.NDArray[np.bool_]: ...  # noqa: D102
    @property
    def proposed(self) -> npt.NDArray[np.bool_]: ...  # noqa: D102
    @property
    def probabilities(self) -> npt.NDArray[np.float32]: ...  # noqa: D102
    @property
    def said(self) -> npt.NDArray[np.int8]: ...  # noqa: D102


def joined(names: Iterable[str]) -> str:
    r"""Join names by `;`; a `;` or `\` in a name is written with a `\` before it."""
    return SEPARATOR.join(re.sub(r"([\\;])", r"\\\1", name) for name in names)


def names_in(text: str) -> list[str]:
    """Take apart what `joined` wrote, or a person; spaces around names are dropped, and each name is given once."""
    parts = re.findall(r"(?:\\.|[^\\;]|\\$)+", text, flags=re.DOTALL)
    names = (re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL).strip() for part in parts)
    return list(dict.fromkeys(filter(None, names)))


def write_csv(path: Path, classes: Sequence[str], batches: Iterable[Rows]) -> int:
    """Write the table as CSV, UTF-8; return how many labels."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(_header(classes))
        count = 0
        for batch in batches:
            rows.writerows(_csv_rows(classes, batch))
            count += int(batch.named.sum())
    return count


def write_parquet(path: Path, classes: Sequence[str], batches: Iterable[Rows]) -> int:
    """Write the table as Parquet, probabilities in float32; return how many labels."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    head = _header(classes)
    types = [pa.string()] * len(COLUMNS) + [pa.float32()] * len(classes)
    schema = pa.schema(list(zip(head, types, strict=True)))
    count = 0
    with replacing(path) as draft, ParquetWriter(draft, schema) as out:
        for batch in batches:
            columns = [pa.array(list(values), pa.string()) for values in zip(*_texts(classes, batch), strict=True)]
            columns += [pa.array(p, pa.float32()) for p in batch.probabilities.T]
            out.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += int(batch.named.sum())
    return count


def _header(classes: Sequence[str]) -> list[str]:
    return [*COLUMNS, *(f"p_{name}" for name in classes)]


def _csv_rows(classes: Sequence[str], batch: Rows) -> Iterator[list[str]]:
    for texts, probabilities in zip(_texts(classes, batch), batch.probabilities, strict=True):
        yield [*texts, *(f"{p:.6g}" for p in probabilities)]


def _texts(classes: Sequence[str], batch: Rows) -> Iterator[list[str]]:
    """Give the columns of text, photo after photo."""
    columns = (batch.photos[name] for name in ("id", "path", "split"))
    sets = (batch.named, batch.proposed, batch.said != LEFT)
    for name, path, split, *rows in zip(*columns, *sets, strict=True):
        yield [name, path, split, batch.stage, *(joined(classes[int(c)] for c in np.flatnonzero(row)) for row in rows)]
