"""Stages that change nothing, such as a correction by rule identity: their rows and panels are left out."""

from dataclasses import replace

import pandas as pd

from cutsew.reporting.content import Tables
from cutsew.reporting.style import STAGE_TITLES
from cutsew.storage.predictions import REFERENCE

ALWAYS_SHOWN = ("zero_shot", "fused")

SAME = ["jaccard", "spearman"]
"""Columns of agreement.csv that are 1 (or unknown) where two stages say the same."""


def without_repeats(tables: Tables) -> tuple[Tables, str]:
    """Leave out stages that say on a split what another one says; a split's last stage is always kept.

    Args:
        tables: what evaluate wrote.

    Returns:
        The tables without the rows of such stages, and a sentence that names them; empty for none.

    """
    dropped: dict[tuple[str, str], str] = {}  # (split, stage) -> the stage that says the same
    for split, rows in tables.metrics.groupby("split", sort=False):
        measured = rows[~rows["stage"].str.startswith(REFERENCE)].drop(columns=["remark"], errors="ignore")
        values = measured.set_index("stage")
        stages = [str(stage) for stage in values.index]
        for stage in stages[:-1]:
            others = [other for other in stages if other != stage and (split, other) not in dropped]
            equals = (
                other
                for other in others
                if values.T[other].equals(values.T[stage]) and _agree(tables.agreement, str(split), {stage, other})
            )
            if stage not in ALWAYS_SHOWN and (kept := next(equals, None)):
                dropped[str(split), stage] = kept
    if not dropped:
        return tables, ""
    metrics, confidence = (_kept(table, dropped, ["stage"]) for table in (tables.metrics, tables.confidence))
    agreement = _kept(tables.agreement, dropped, ["first", "second"])
    same = dict.fromkeys(f"{STAGE_TITLES[one]} (same as {STAGE_TITLES[kept]})" for (_, one), kept in dropped.items())
    return replace(tables, metrics=metrics, confidence=confidence, agreement=agreement), f"Left out: {', '.join(same)}."


def _agree(agreement: pd.DataFrame, split: str, stages: set[str]) -> bool:
    pair = (agreement["split"] == split) & agreement["first"].isin(stages) & agreement["second"].isin(stages)
    return bool(pair.any()) and bool((agreement.loc[pair, SAME].fillna(1) == 1).all(axis=None))


def _kept(table: pd.DataFrame, dropped: dict[tuple[str, str], str], columns: list[str]) -> pd.DataFrame:
    if table.empty:
        return table
    rows = table[["split", *columns]].to_dict("records")
    kept = [all((row["split"], row[name]) not in dropped for name in columns) for row in rows]
    return table[kept].reset_index(drop=True)
