"""thresholds.csv: from which probability each class counts as named, by every rule, and how many photos that names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.artefacts.atomic import replacing
from cutsew.errors import UserError
from cutsew.numerics.thresholds import FIXED, named

TABLE = "thresholds.csv"
LABELS = "labels"
"""The rule that uses labels."""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of C classes by several rules.

    Attributes:
        rule: the one that is used unless another is asked for.
        by_rule: rule -> C probabilities in [0, 1].

    """

    rule: str
    by_rule: dict[str, list[float]]

    def choose(self, rule: str | None = None) -> npt.NDArray[np.float64]:
        """Return the (C,) thresholds of a rule, of the usual one for None.

        Raises:
            UserError: there is no such rule.

        """
        wanted = rule or self.rule
        if wanted not in self.by_rule:
            raise UserError(f"--rule: this model has no thresholds {wanted}; it has {', '.join(self.by_rule)}")
        return np.array(self.by_rule[wanted])


def plain(classes: int) -> Thresholds:
    """Return 0.5 for each of C classes."""
    return Thresholds("fixed", {"fixed": [FIXED] * classes})


def write(
    path: Path, classes: list[str], found: Thresholds, logits: npt.NDArray[np.float32], share: list[float]
) -> None:
    """Write the table.

    Args:
        path: of the CSV.
        classes: C names.
        found: the thresholds.
        logits: (N, C), of the photos that they were chosen on.
        share: (C,) expected share of photos, in [0, 1].

    """
    table = pd.DataFrame({"class": classes, "chosen": found.choose(), **found.by_rule, "photos": len(logits)})
    table["expected"] = [s * len(logits) for s in share]
    for rule in found.by_rule:
        table[f"named_{rule}"] = named(logits, found.choose(rule)).sum(axis=0)
    table["rule"] = found.rule
    with replacing(path) as draft:
        table.to_csv(draft, index=False)


def read(path: Path, classes: list[str]) -> Thresholds:
    """Read the table.

    Raises:
        UserError: it is no such table, or not one of these classes.

    """
    try:
        table = pd.read_csv(path, dtype={"class": str}, keep_default_na=False)
        rules = [name.removeprefix("named_") for name in table.columns if name.startswith("named_")]
        by_rule = {rule: [float(value) for value in table[rule]] for rule in rules}
        found = Thresholds(str(table["rule"].iloc[0]), by_rule)
        same = table["class"].tolist() == classes
    except (OSError, ValueError, KeyError, IndexError):
        raise UserError(f"{path}: not a table of thresholds; run the workflow again to make it") from None
    if not same:
        raise UserError(f"{path}: its classes are not the model's; run the workflow again to make it")
    return found
