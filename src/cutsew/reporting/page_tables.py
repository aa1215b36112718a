"""The page's tables of numbers and of provenance.

- The page's tables.
- How the artifacts of a report were made, from their records.
"""

import json
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cutsew.pipeline.graph import STAGES
from cutsew.reporting.run_data import Labels, Run
from cutsew.reporting.style import STAGE_TITLES
from cutsew.storage.predictions import REFERENCE
from cutsew.storage.result_tables import TABLE, without_repeated_mean
from cutsew.storage.zarr_layout import folder_of

MAIN = ("images", "mAP", "mAP_10", "CF1", "OF1", "labels_per_image", "confidence")
"""Columns of metrics.csv that the page shows first."""

AT_THRESHOLD = ("CP", "CR", "CF1", "OP", "OR", "OF1")
HEADS = {
    "images": "images",
    "mAP_10": "mAP, 10+ positives",
    "labels_per_image": "labels per image",
    "confidence": "confidence (0 to 1)",
}
NOT_PERCENT = ("images", "inversions", "labels per image", "confidence (0 to 1)")
"""Column heads of counts and of probabilities; other numbers of stages are percentages."""

RULE_MEASURES = ("labels_per_image", "mean_F1", "CP", "CR", "CF1", "OP", "OR", "OF1")
"""Columns of thresholds_f1.csv that the page shows."""


MOST_ROWS, PAGE_ROWS = 1000, 50
"""Rows of a table of classes that the page holds, and those that it shows at a time."""

MOST_VALUES = 100
"""Values of a list or mapping of settings or facts that the page holds."""


@dataclass(frozen=True)
class Grid:
    """A table for the page.

    Attributes:
        caption: above it.
        heads: of the columns.
        rows: ready text.
        texts: leading columns that are words.
        rest: which rows are left out and which file has them; empty where all are here.

    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int
    rest: str = ""


def stage_grids(metrics: pd.DataFrame) -> list[Grid]:
    """Lay out metrics.csv as tables that fit a page; columns without values are omitted.

    First the main columns, then precision and recall at the threshold, then those of the likeliest few and all else.
    """
    known = (
        without_repeated_mean(metrics)
        .drop(columns=["with_truth", "mAP_classes", "mAP_10_classes", "remark"], errors="ignore")
        .dropna(axis="columns", how="all")
    )
    names = [name for name in known.columns if name not in ("stage", "split")]
    top = [name for name in names if name.startswith("top")]
    main = [name for name in MAIN if name in names]
    rest = [name for name in names if name not in (*MAIN, *AT_THRESHOLD, *top)]
    few = top[0].partition("_")[0].removeprefix("top") if top else ""
    parts = [
        (_with_unit("Every stage", main), main),
        ("Precision and recall of the classes at or above the threshold", [n for n in AT_THRESHOLD if n in names]),
        (f"Precision and recall of the {few} likeliest classes of an image", top),
        ("Further measures", rest),
    ]
    return [_of_stages(caption, known, columns) for caption, columns in parts if columns]


def _of_stages(caption: str, table: pd.DataFrame, columns: list[str]) -> Grid:
    rows = [
        (STAGE_TITLES[row["stage"]], row["split"], *(_number(name, row[name]) for name in columns))
        for _, row in table.iterrows()
    ]
    heads = [HEADS.get(name, name.replace("_", " ")) for name in columns]
    return Grid(caption, ("stage", "split", *heads), tuple(rows), 2)


def split_apart(grid: Grid) -> list[Grid]:
    """Cut a table of stages into one per split, to stand side by side, without the columns that are the same inside."""
    result = []
    for split in dict.fromkeys(row[1] for row in grid.rows):
        rows = [row for row in grid.rows if row[1] == split]
        counts = dict.fromkeys(row[grid.heads.index("images")] for row in rows)
        dropped = ("split", "images") if len(counts) == 1 else ("split",)
        kept = [place for place, head in enumerate(grid.heads) if head not in dropped]
        number = f"{next(iter(counts))} " if len(counts) == 1 else ""
        cells = tuple(tuple(row[place] for place in kept) for row in rows)
        heads = tuple(grid.heads[place] for place in kept)
        result.append(Grid(_with_unit(f"{number}{split} images", heads[1:]), heads, cells, 1))
    return result


def agreement_grid(agreement: pd.DataFrame) -> Grid:
    """Lay out agreement.csv."""
    rows = tuple(
        (f"{STAGE_TITLES[row['first']]} and {STAGE_TITLES[row['second']]}", row["split"])
        + tuple("-" if pd.isna(row[name]) else f"{row[name]:.3f}" for name in ("top1", "jaccard", "spearman"))
        for _, row in agreement.iterrows()
    )
    heads = ("stages", "split", "same first class", "shared labels (Jaccard)", "order of classes (Spearman)")
    return Grid("How far two stages agree on an image, on average", heads, rows, 2)


def thresholds_grid(run: Run, labels: Mapping[str, Labels]) -> Grid | None:
    """Lay out the decision thresholds of every stage, per class; None where they are all the same.

    Of more than MOST_ROWS classes, those that the last stages name in most images.
    """
    measured = {stage for stages in run.stages.values() for stage in stages}
    shown = [stage for stage in STAGE_TITLES if stage in run.thresholds.by_stage and stage in measured]
    columns = [run.thresholds.of(stage, len(run.classes)) for stage in shown]
    if all((column == columns[0][0]).all() for column in columns):
        return None
    classes, rest = range(len(run.classes)), ""
    if len(classes) > MOST_ROWS:
        counts = np.sum([each.counts for each in labels.values()], axis=0)
        classes = np.sort(np.argsort(-counts, kind="stable")[:MOST_ROWS]).tolist()
        rest = (
            f"These are the {MOST_ROWS:,} of {len(run.classes):,} classes that most images are labeled with; {TABLE} "
            "has all"
        )
    rows = tuple((run.classes[c], *(f"{column[c]:.3f}" for column in columns)) for c in classes)
    caption = f"Decision threshold per class, a probability; rule {run.thresholds.in_words()}"
    return Grid(caption, ("class", *(STAGE_TITLES[stage] for stage in shown)), rows, 1, rest)


def rules_grid(rules: pd.DataFrame) -> Grid | None:
    """Lay out thresholds_f1.csv, None where it is empty; columns without known values are omitted."""
    if rules.empty:
        return None
    names = [name for name in RULE_MEASURES if rules[name].notna().any()]
    rows = tuple(
        (str(row["rule"]), row["split"], STAGE_TITLES[str(row["stage"])], *(_number(name, row[name]) for name in names))
        for _, row in rules.iterrows()
    )
    heads = ("rule", "split", "stage", *(HEADS.get(name, name.replace("_", " ")) for name in names))
    return Grid(_with_unit("The last labels by each rule of thresholds", heads[3:]), heads, rows, 3)


def left_grid(left: Sequence[Mapping[str, Any]]) -> Grid | None:
    """Lay out the files that are not in the manifest, by suffix and reason; None where there are none."""
    if not left:
        return None
    rows = tuple((str(row["label"]), str(row["reason"]), f"{row['count']:,}") for row in left)
    return Grid("Files that are not among these images; skipped.csv names each", ("suffix", "reason", "files"), rows, 2)


def headlines(metrics: pd.DataFrame, split: str) -> list[tuple[str, str, str, str]]:
    """Return (what, from, to, gain or loss) of the first and last stage of a split; nothing without truth.

    A count of labels is neither, nor is a difference that rounds to nothing.
    """
    rows = metrics[(metrics["split"] == split) & ~metrics["stage"].str.startswith(REFERENCE)]
    first, last = rows.iloc[0], rows.iloc[-1]
    if pd.isna(first["mAP"]) and pd.isna(first["OF1"]):
        return []
    stages = f"{STAGE_TITLES[first['stage']]} to {STAGE_TITLES[last['stage']]}"
    result = []
    for name, title, places in (("mAP", "mAP", 1), ("OF1", "OF1", 1), ("labels_per_image", "labels per image", 2)):
        if pd.notna(first[name]) and pd.notna(last[name]):
            before, after = f"{first[name]:.{places}f}", f"{last[name]:.{places}f}"
            neutral = name == "labels_per_image" or before == after
            change = "" if neutral else "gain" if last[name] > first[name] else "loss"
            result.append((f"{title}, {split}: {stages}", before, after, change))
    return result


def _with_unit(caption: str, heads: Iterable[str]) -> str:
    """Add the unit of the columns to a caption; without true labels, none of them is a percentage."""
    percent = any(HEADS.get(head, head) not in NOT_PERCENT for head in heads)
    return f"{caption}, in percent where not said otherwise" if percent else caption


def _number(name: str, value: float) -> str:
    if pd.isna(value):
        return "-"
    if name in ("images", "inversions"):
        return f"{int(value):,}"
    return f"{value:.2f}" if name in ("labels_per_image", "confidence") else f"{value:.1f}"


Json = dict[str, Any]


def records(artifacts: Iterable[Path]) -> dict[Path, Json]:
    """Read the records of some artifacts and of all that they were made from.

    Args:
        artifacts: files and Zarrs (folder or `zarr.json`).

    Returns:
        Path of each record -> its content, in the order of the pipeline. An artifact without a record is passed over.

    """
    result: dict[Path, Json] = {}
    waiting = [folder_of(path) for path in artifacts]
    while waiting:
        artifact = waiting.pop()
        for path, content in _records_of(artifact):
            if path not in result:
                result[path] = content
                waiting.extend(folder_of((path.parent / name).resolve()) for name in content["inputs"])
    order = {stage: place for place, stage in enumerate(STAGES)}
    return dict(sorted(result.items(), key=lambda item: (order.get(item[1]["stage"], len(order)), str(item[0]))))


def flat_settings(contents: Iterable[Json]) -> dict[str, Any]:
    """Gather the settings of all records under their dotted names."""
    gathered: dict[str, Any] = {}
    for content in contents:
        gathered |= _flatten(content["settings"], "")
    gathered.pop("version", None)
    return dict(sorted(gathered.items()))


def shortened(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Cut long lists and mappings of JSON values to MOST_VALUES, saying how many are left out; files have them all."""
    if isinstance(value, dict):
        cut = {key: shortened(content) for key, content in list(value.items())[:MOST_VALUES]}
        return cut | ({"...": _more(value)} if len(value) > MOST_VALUES else {})
    if isinstance(value, list):
        listed = [shortened(content) for content in value[:MOST_VALUES]]
        return listed + ([f"... {_more(value)}"] if len(value) > MOST_VALUES else [])
    return value


def _more(values: Sized) -> str:
    return f"and {len(values) - MOST_VALUES:,} more"


def packages(contents: Iterable[Json]) -> dict[str, str]:
    """Gather the package versions of all records; where they differ, all are named."""
    seen: dict[str, dict[str, None]] = {}
    for content in contents:
        for name, version in {"python": content.get("python"), **content.get("packages", {})}.items():
            if version:
                seen.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(versions) for name, versions in sorted(seen.items())}


def _records_of(artifact: Path) -> list[tuple[Path, Json]]:
    """Find the record of an artifact: of the same stem, or any that lists it as an output."""
    record = artifact.with_suffix(".json")
    candidates = [record] if record.is_file() else sorted(artifact.parent.glob("*.json"))
    read = [(path.resolve(), _read(path)) for path in candidates if path != artifact]
    return [(path, content) for path, content in read if content and artifact.name in content["outputs"]]


def _read(path: Path) -> Json | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(content, dict) and {"stage", "settings", "inputs", "outputs"} <= content.keys()
    return content if whole else None


def _flatten(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
