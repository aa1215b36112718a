"""metrics.csv as text for a terminal, and what it remarks on."""

import pandas as pd

from cutsew.errors import printable

PRINTED = ("stage", "split", "images", "mAP", "mAP_10", "CF1", "OF1", "labels_per_image", "confidence")
"""The columns that are shown; the file holds more."""


def as_text(table: pd.DataFrame) -> str:
    """Set the main columns of metrics.csv as aligned text; what is not known is a dash. Remarks follow."""
    table = without_repeated_mean(table)
    shown = [name for name in PRINTED if name in table.columns]
    text = table.to_string(columns=shown, index=False, na_rep="-", float_format=lambda x: f"{x:.2f}")
    return "\n".join([text, *(f"note: {printable(remark)}" for remark in remarks(table))])


def without_repeated_mean(table: pd.DataFrame) -> pd.DataFrame:
    """Drop `mAP_10` where it leaves out no class and so says what `mAP` says."""
    same = "mAP_10" in table.columns and table["mAP_10"].astype(float).equals(table["mAP"].astype(float))
    return table.drop(columns="mAP_10") if same else table


def remarks(table: pd.DataFrame) -> list[str]:
    """List what metrics.csv remarks on, each remark once with the stages and the split that it is of."""
    if "remark" not in table.columns:
        return []
    told = table[table["remark"].astype(object).fillna("") != ""]
    found: dict[tuple[str, str], list[str]] = {}
    for stage, split, text in zip(told["stage"], told["split"], told["remark"], strict=True):
        for remark in str(text).split("; "):
            found.setdefault((str(split), remark), []).append(str(stage))
    return [f"{', '.join(stages)}, {split}: {remark}" for (split, remark), stages in found.items()]
