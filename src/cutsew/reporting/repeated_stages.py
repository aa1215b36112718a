"""Stages that change nothing, such as a correction by rule identity: their rows and panels are left out."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from cutsew.reporting.content import Tables
from cutsew.reporting.style import STAGE_TITLES
from cutsew.storage.image_ids import Ids
from cutsew.storage.predictions import REFERENCE, StagePredictions

ALWAYS_SHOWN = ("zero_shot", "fused")


def without_repeats(
    tables: Tables, outcomes: Mapping[str, StagePredictions], ids: Mapping[str, Ids]
) -> tuple[Tables, str]:
    """Leave out stages whose logits equal those of another one on a split; a split's last stage is always kept.

    Args:
        tables: what evaluate wrote.
        outcomes: the stages' logits, by stage.
        ids: split -> ids of its images.

    Returns:
        The tables without the rows of such stages, and a sentence that names them; empty for none.

    """
    dropped: dict[tuple[str, str], str] = {}  # (split, stage) -> the stage that says the same
    for split, rows in tables.metrics.groupby("split", sort=False):
        measured = rows[~rows["stage"].str.startswith(REFERENCE)].drop(columns=["remark"], errors="ignore")
        values = measured.set_index("stage")
        stages = [str(stage) for stage in values.index if stage in outcomes]
        for stage in stages[:-1]:
            others = [other for other in stages if other != stage and (split, other) not in dropped]
            equals = (
                other
                for other in others
                if values.T[other].equals(values.T[stage])  # spares reading most pairs
                and _equal(outcomes[stage], outcomes[other], ids[str(split)])
            )
            if stage not in ALWAYS_SHOWN and (kept := next(equals, None)):
                dropped[str(split), stage] = kept
    if not dropped:
        return tables, ""
    metrics, confidence = (_kept(table, dropped, ["stage"]) for table in (tables.metrics, tables.confidence))
    agreement = _kept(tables.agreement, dropped, ["first", "second"])
    same = dict.fromkeys(f"{STAGE_TITLES[one]} (same as {STAGE_TITLES[kept]})" for (_, one), kept in dropped.items())
    return replace(tables, metrics=metrics, confidence=confidence, agreement=agreement), f"Left out: {', '.join(same)}."


def _equal(first: StagePredictions, second: StagePredictions, ids: Ids) -> bool:
    """Compare the logits of some images: metrics.csv has six digits, and stages that differ less are two stages."""
    pairs = zip(first.slices(ids), second.slices(ids), strict=True)
    return all(np.array_equal(z, other, equal_nan=True) for z, other in pairs)


def _kept(table: pd.DataFrame, dropped: dict[tuple[str, str], str], columns: list[str]) -> pd.DataFrame:
    if table.empty:
        return table
    rows = table[["split", *columns]].to_dict("records")
    kept = [all((row["split"], row[name]) not in dropped for name in columns) for row in rows]
    return table[kept].reset_index(drop=True)
