"""The page itself: what the template shows, put together from tables, charts, photos and records."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from cutsew.artefacts.outcome import REFERENCE
from cutsew.reporting import charts, provenance
from cutsew.reporting.charts import STAGE_TITLES, Chart
from cutsew.reporting.gallery import MOST_LABELS, Card

MOST_OUTPUTS = 8
"""Outputs of one record that are listed; a sealed Zarr names each of its chunk files."""


MAIN_COLUMNS = ("stage", "split", "images", "mAP", "CF1", "OF1", "labels_per_image", "confidence")
"""Columns of metrics.csv that the page shows first."""


@dataclass(frozen=True)
class Tables:
    """What evaluate wrote, and the history of the training, where there was one."""

    metrics: pd.DataFrame
    per_class: pd.DataFrame
    confidence: pd.DataFrame
    agreement: pd.DataFrame
    history: pd.DataFrame | None


@dataclass(frozen=True)
class Grid:
    """A table for the page: its caption, column heads and rows of ready text; `texts` leading columns are words."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int


def render(
    names: tuple[str, str],
    tables: Tables,
    classes: Sequence[str],
    threshold: float,
    cards: Sequence[Card],
    records: Mapping[Path, dict[str, Any]],
) -> str:
    """Return the page as HTML.

    Args:
        names: of dataset and run.
        tables: what is charted.
        classes: names of the classes.
        threshold: probability from which a class counts as named.
        cards: photos of the gallery.
        records: how everything was made.

    """
    environment = Environment(
        loader=PackageLoader("cutsew", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        dataset=names[0],
        run=names[1],
        photos=tables.metrics.groupby("split", sort=False)["images"].first().to_dict(),
        with_truth=int(tables.metrics.groupby("split")["with_truth"].first().sum()),
        classes=classes,
        threshold=threshold,
        headlines=headlines(tables.metrics),
        stages=stage_grid(tables.metrics),
        agreement=agreement_grid(tables.agreement),
        charts=all_charts(tables),
        cards=cards,
        most_labels=MOST_LABELS,
        titles=STAGE_TITLES,
        settings=[
            (name, json.dumps(value, ensure_ascii=False))
            for name, value in provenance.flat_settings(records.values()).items()
        ],
        packages=provenance.packages(records.values()),
        records=[_shown(path, content) for path, content in records.items()],
    )


def headlines(metrics: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return (what, from, to) of the first and last stage of the held-out photos, else of the training photos."""
    metrics = _of_stages(metrics)
    split = "test" if (metrics["split"] == "test").any() else "train"
    rows = metrics[metrics["split"] == split]
    first, last = rows.iloc[0], rows.iloc[-1]
    shown = [("mAP", "mAP", 1), ("OF1", "OF1", 1), ("labels_per_image", "labels per photo", 2)]
    return [
        (f"{title}, {split}", f"{first[name]:.{places}f}", f"{last[name]:.{places}f}")
        for name, title, places in shown
        if pd.notna(first[name]) and pd.notna(last[name])
    ]


def stage_grid(metrics: pd.DataFrame) -> Grid:
    """Lay out metrics.csv; columns that are empty throughout are left out."""
    known = metrics.drop(columns=["with_truth"]).dropna(axis="columns", how="all")
    first = [name for name in MAIN_COLUMNS if name in known.columns]
    shown = known[[*first, *(name for name in known.columns if name not in first)]]
    heads = {"images": "photos", "labels_per_image": "labels per photo"}
    rows = []
    for _, row in shown.iterrows():
        cells = [STAGE_TITLES[row["stage"]], row["split"], f"{row['images']:,}"]
        cells += [_number(name, row[name]) for name in shown.columns[3:]]
        rows.append(tuple(cells))
    names = tuple(heads.get(name, name.replace("_", " ")) for name in shown.columns)
    return Grid("Every stage, in percent where not said otherwise", names, tuple(rows), 2)


def agreement_grid(agreement: pd.DataFrame) -> Grid:
    """Lay out agreement.csv."""
    rows = tuple(
        (f"{STAGE_TITLES[row['first']]} and {STAGE_TITLES[row['second']]}", row["split"])
        + tuple("-" if pd.isna(row[name]) else f"{row[name]:.3f}" for name in ("top1", "jaccard", "spearman"))
        for _, row in agreement.iterrows()
    )
    heads = ("stages", "split", "same first class", "shared labels (Jaccard)", "order of classes (Spearman)")
    return Grid("How far two stages agree on a photo, on average", heads, rows, 2)


def all_charts(tables: Tables) -> list[Chart]:
    """Draw every chart that the tables have something for."""
    metrics = _of_stages(tables.metrics)
    drawn: list[Chart | None] = []
    split = "test" if (metrics["split"] == "test").any() else "train"
    stages = list(metrics.loc[metrics["split"] == split, "stage"])
    drawn.append(charts.per_class(tables.per_class, split, stages[0], stages[-1]))
    drawn.append(charts.labels_per_image(metrics, _true_labels(tables)))
    drawn += [charts.confidence(_of_stages(tables.confidence), split) for split in dict.fromkeys(metrics["split"])]
    if tables.history is not None:
        drawn.append(charts.training(tables.history))
    return [chart for chart in drawn if chart is not None]


def _of_stages(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the rows of reference students."""
    return table[~table["stage"].str.startswith(REFERENCE)]


def _true_labels(tables: Tables) -> dict[str, float]:
    """Return split -> true labels per photo, over the photos with truth."""
    photos = tables.metrics.groupby("split", sort=False)["with_truth"].first()
    first = tables.per_class[tables.per_class["stage"] == "zero_shot"]
    positives = first.groupby("split", sort=False)["positives"].sum()
    return {str(split): float(n) for split, n in (positives / photos)[photos > 0].items()}


def _number(name: str, value: float) -> str:
    if pd.isna(value):
        return "-"
    if name == "inversions":
        return f"{int(value):,}"
    return f"{value:.2f}" if name in ("labels_per_image", "confidence") else f"{value:.1f}"


def _shown(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    outputs = list(content["outputs"].items())
    return {
        "file": path.name,
        "outputs": outputs[:MOST_OUTPUTS],
        "more": max(0, len(outputs) - MOST_OUTPUTS),
        "inputs": list(content["inputs"].items())[:MOST_OUTPUTS],
        "settings": json.dumps(content["settings"], indent=1, ensure_ascii=False),
        "facts": json.dumps(content.get("facts", {}), indent=1, ensure_ascii=False),
        **{key: content.get(key) for key in ("stage", "version", "commit", "start", "end")},
    }
