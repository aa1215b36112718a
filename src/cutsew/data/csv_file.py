"""Reading a CSV that a person made, as text."""

from pathlib import Path

import pandas as pd

from cutsew.errors import UserError


def read_csv(path: Path, setting: str, *, spaces: bool = False) -> pd.DataFrame:
    """Read a CSV as text; a field that a row lacks is empty.

    Args:
        path: the file, UTF-8.
        setting: dotted name of the setting that names it, for messages.
        spaces: drop spaces after commas.

    Raises:
        UserError: the file is missing or no CSV, its rows have more fields than its first line, or that names a column
            twice.

    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=spaces, header=None
        )
    except FileNotFoundError:
        raise UserError(f"{setting}: {path} does not exist; name an existing CSV, or null for none") from None
    except (OSError, ValueError) as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        reason = (str(error).strip().splitlines() or ["no text"])[0]
        raise UserError(f"{setting}: {path} is not a readable CSV ({reason}); mend it") from None
    heads = [str(name) for name in table.iloc[0]]
    twice = next((name for i, name in enumerate(heads) if name in heads[:i]), None)
    if twice is not None:
        raise UserError(f"{setting}: {path} names the column {twice!r} twice; mend its first line")
    return table.iloc[1:].set_axis(heads, axis="columns").reset_index(drop=True).fillna("")
