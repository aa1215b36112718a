"""Reading back tables and records that stages wrote; one that is damaged or another version's is named in one line."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutsew.errors import UserError

if TYPE_CHECKING:  # pandas is imported when the first table is read: a light stage's help needs none
    import pandas as pd

AGAIN = "delete it and run the workflow again"


def read_parquet(
    path: Path, columns: Sequence[str], filters: list[tuple[str, str, Any]] | None = None
) -> "pd.DataFrame":
    """Read columns of a parquet table; of the rows those that filters (see pandas) keep.

    Raises:
        UserError: it is missing or damaged, or lacks one of `columns`.

    """
    import pandas as pd
    from pyarrow.parquet import read_schema

    with _refuse_damaged(path):
        _refuse_lost(columns, read_schema(path).names, path)
        table = pd.read_parquet(path, columns=list(columns), filters=filters)
        release_unused()
        return table


def release_unused() -> None:
    """Give memory of text that pandas has copied back to the system: of a million images, 0.25 GB."""
    from pyarrow import default_memory_pool

    default_memory_pool().release_unused()


def read_names(path: Path) -> list[str]:
    """Read the names of a parquet table's columns.

    Raises:
        UserError: it is missing or damaged.

    """
    from pyarrow.parquet import read_schema

    with _refuse_damaged(path):
        return [str(name) for name in read_schema(path).names]


def read_row_groups(path: Path, columns: Sequence[str], column: str, value: int) -> "tuple[int, pd.DataFrame]":
    """Read those consecutive row groups of a parquet table that may hold a value in an ascending column.

    Args:
        path: the table.
        columns: those to read.
        column: an ascending one of whole numbers.
        value: what is looked for.

    Returns:
        The number of the first row that was read, and the rows of these groups; none where no group may hold the value.

    Raises:
        UserError: it is missing or damaged, or lacks one of `columns`.

    """
    from pyarrow.parquet import ParquetFile

    with _refuse_damaged(path), ParquetFile(path) as table:
        names = table.schema_arrow.names
        _refuse_lost(columns, names, path)
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        place = names.index(column)
        bounds = [group.column(place).statistics for group in groups]
        holding = [n for n, bound in enumerate(bounds) if bound is None or bound.min <= value <= bound.max]
        first = sum(group.num_rows for group in groups[: holding[0]]) if holding else 0
        return first, table.read_row_groups(holding, columns=list(columns)).to_pandas()


def read_csv(path: Path, columns: Iterable[str], **options: Any) -> "pd.DataFrame":  # noqa: ANN401  # pandas' own
    """Read a CSV by pandas, with its options.

    Raises:
        UserError: it is missing or damaged, or lacks one of `columns`.

    """
    import pandas as pd

    try:
        table: pd.DataFrame = pd.read_csv(path, **options)
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run the workflow to make it") from None
    except (OSError, ValueError):  # pandas' own errors and UnicodeDecodeError are ValueErrors
        raise UserError(f"{path}: not a readable table; {AGAIN}") from None
    _refuse_lost(columns, table.columns, path)
    return table


def read_record(path: Path, *keys: str) -> Any:  # noqa: ANN401  # what stands in it
    """Read a record, or what stands in it below some keys.

    Raises:
        UserError: it is missing or damaged, or lacks a key.

    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such record; run the workflow to make it") from None
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{path}: not a readable record; {AGAIN}") from None
    return require_keys(content, path, *keys)


def require_keys(content: Any, path: Path, *keys: str) -> Any:  # noqa: ANN401  # what stands there
    """Return what stands below some keys of a record that was read from `path`.

    Raises:
        UserError: it lacks a key.

    """
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{path}: has no field {key}, so it was written by another version; {AGAIN}")
        content = content[key]
    return content


def label_column(name: str) -> str:
    """Return which column of truth.parquet holds a class: its name, but for that of the column of images."""
    return f"class/{name}" if name == "id" or name.startswith("class/") else name


@contextmanager
def _refuse_damaged(path: Path) -> Iterator[None]:
    """Refuse a parquet table that is missing, or at which a reader fails inside the block."""
    from pyarrow.lib import ArrowException

    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run the workflow to make it") from None
    except (OSError, ValueError, KeyError, TypeError, ArrowException):
        raise UserError(f"{path}: not a complete parquet table; {AGAIN}") from None


def _refuse_lost(columns: Iterable[str], columns_present: Iterable[str], path: Path) -> None:
    present = set(columns_present)
    missing = [name for name in columns if name not in present]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}; {AGAIN}")
