"""What the records of a group's many jobs say together, before one job seals the group."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cutsew.artefacts.tables import read_record, said
from cutsew.errors import UserError


def agreed(records: Iterable[Path], names: Sequence[str], refusal: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Read records of jobs that each wrote chunk files of one group.

    Args:
        records: their paths.
        names: facts that all must agree on.
        refusal: what is said of one that does not, behind its path.

    Returns:
        Digests of all chunk files as their writers told them, and the facts.

    Raises:
        UserError: a record is missing or damaged, or differs from those before it.

    """
    known: dict[str, str] = {}
    facts: dict[str, Any] = {}
    for path in records:
        content = read_record(path)
        known |= said(content, path, "outputs")
        mine = {name: said(content, path, "facts", name) for name in names}
        facts = facts or mine
        if mine != facts:
            raise UserError(f"{path}: {refusal}")
    return known, facts
