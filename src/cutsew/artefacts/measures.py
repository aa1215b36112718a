"""metrics.csv as text for a terminal."""

import pandas as pd

PRINTED = ("stage", "split", "images", "mAP", "CF1", "OF1", "labels_per_image", "confidence")
"""The columns that are shown; the file holds more."""


def as_text(table: pd.DataFrame) -> str:
    """Set the main columns of metrics.csv as aligned text; what is not known is a dash."""
    shown = [name for name in PRINTED if name in table.columns]
    return table.to_string(columns=shown, index=False, na_rep="-", float_format=lambda x: f"{x:.2f}")
