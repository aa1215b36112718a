"""ensemble.csv and tiles.csv: what is usual for two models, mean and deviation of each class's logits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cutsew.artefacts.atomic import replacing
from cutsew.errors import UserError
from cutsew.numerics.ensemble import Reference

ENSEMBLE, TILES = "ensemble.csv", "tiles.csv"
MODELS = {ENSEMBLE: ("student", "teacher"), TILES: ("student", "tiles")}
"""Name of the table -> the models that it tells of."""


def sample(train: pd.DataFrame, most: int) -> pd.DataFrame:
    """Choose at most so many of the manifest's training photos, spread evenly, to measure what is usual."""
    return train.iloc[np.unique(np.linspace(0, len(train) - 1, min(len(train), most)).round().astype(int))]


def write(path: Path, classes: list[str], usual: Mapping[str, Reference]) -> None:
    """Write the table: column class, and of each model `<model>_mean` and `<model>_deviation`."""
    table = pd.DataFrame({"class": classes})
    for model, found in usual.items():
        table[f"{model}_mean"], table[f"{model}_deviation"] = found.mean, found.deviation
    with replacing(path) as draft:
        table.to_csv(draft, index=False)


def read(path: Path, classes: Sequence[str]) -> dict[str, Reference]:
    """Read the table, whose name tells which: what is usual for each of its MODELS.

    Raises:
        UserError: it is no such table, or not one of these classes.

    """
    try:
        table = pd.read_csv(path, dtype={"class": str}, keep_default_na=False)
        same = table["class"].tolist() == list(classes)
        found = {m: Reference(*table[[f"{m}_mean", f"{m}_deviation"]].to_numpy(float).T) for m in MODELS[path.name]}
    except (OSError, ValueError, KeyError):
        raise UserError(f"{path}: not a table of what is usual; run the workflow again to make it") from None
    if not same:
        raise UserError(f"{path}: its classes are not the model's; run the workflow again to make it")
    return found
