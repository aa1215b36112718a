"""ensemble.csv: what is usual for student and teacher, mean and deviation of each class's logits."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cutsew.artefacts.atomic import replacing
from cutsew.numerics.ensemble import Reference

TABLE = "ensemble.csv"


def write(path: Path, classes: list[str], usual: Mapping[str, Reference]) -> None:
    """Write the table: column class, and of each model `<model>_mean` and `<model>_deviation`."""
    table = pd.DataFrame({"class": classes})
    for model, found in usual.items():
        table[f"{model}_mean"], table[f"{model}_deviation"] = found.mean, found.deviation
    with replacing(path) as draft:
        table.to_csv(draft, index=False)
