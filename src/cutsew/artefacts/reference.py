"""ensemble.csv: what is usual for student and teacher, mean and deviation of each class's logits."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cutsew.artefacts.atomic import replacing
from cutsew.errors import UserError
from cutsew.numerics.ensemble import Reference

TABLE = "ensemble.csv"
MODELS = ("student", "teacher")


def write(path: Path, classes: list[str], usual: Mapping[str, Reference]) -> None:
    """Write the table: column class, and of each model `<model>_mean` and `<model>_deviation`."""
    table = pd.DataFrame({"class": classes})
    for model, found in usual.items():
        table[f"{model}_mean"], table[f"{model}_deviation"] = found.mean, found.deviation
    with replacing(path) as draft:
        table.to_csv(draft, index=False)


def read(path: Path, classes: list[str]) -> dict[str, Reference]:
    """Read the table: what is usual for each of MODELS.

    Raises:
        UserError: it is no such table, or not one of these classes.

    """
    try:
        table = pd.read_csv(path, dtype={"class": str}, keep_default_na=False)
        same = table["class"].tolist() == classes
        found = {m: Reference(*table[[f"{m}_mean", f"{m}_deviation"]].to_numpy(float).T) for m in MODELS}
    except (OSError, ValueError, KeyError):
        raise UserError(f"{path}: not a table of what is usual; run the workflow again to make it") from None
    if not same:
        raise UserError(f"{path}: its classes are not the model's; run the workflow again to make it")
    return found
