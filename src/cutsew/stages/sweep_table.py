"""Stage sweep_table: the measurements of a sweep's runs side by side, mean and deviation over seeds."""

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from tqdm import tqdm

from cutsew.audit.compare_runs import RunDifference, difference, stage_of
from cutsew.audit.run import Run
from cutsew.method.metrics import FEW
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.reporting.sweep_plot import draw
from cutsew.stages.options import SettingsOption
from cutsew.storage.atomic import atomic_path
from cutsew.storage.csv_rows import write_csv
from cutsew.storage.tables import read_csv

SPREAD = ("mAP", "mAP_10", "CF1", "OF1")
"""Metrics for which the standard deviation over seeds is reported too, in percent."""

MEAN = ("inversions", "labels_per_image")
"""Metrics for which the mean over seeds is reported."""

DIFFERENCE = ("difference", "difference_low", "difference_high")
"""Columns of the differences in mAP."""

DIFFERENCE_10 = ("difference_10", "difference_10_low", "difference_10_high")
"""Columns of the differences in mAP_10."""

SHORT = dict(zip((*DIFFERENCE, *DIFFERENCE_10), ("diff", "from", "to", "diff_10", "from", "to"), strict=True))
"""Their heads in a terminal."""


def sweep_table(
    table: Annotated[Path, typer.Argument(help="table.csv, written; plot.png is written next to it.")],
    *,
    settings: SettingsOption,
) -> None:
    """Set a sweep's runs side by side, mean and standard deviation over seeds."""
    runs = settings["runs"]
    inputs = list(dict.fromkeys(Path(run["metrics"]) for run in runs))
    record = Record("sweep_table", STAGES["sweep_table"].version, settings, inputs=inputs)
    result = summary(gather(runs))
    if settings.get("against") is not None:
        result = result.join(differences(result, runs, settings["against"]))
    plot = table.with_name("plot.png")
    write_csv(table, result, float_format="%.6g")
    with atomic_path(plot) as draft:
        draw(result, list(runs[0]["settings"]), settings["title"], draft)
    record.facts = {"runs": len(runs)}
    record.write(table.with_suffix(".json"), {path.name: input_digest(path) for path in (table, plot)})
    typer.echo(f"{settings['title']}\n{as_text(result)}")


def gather(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """Read the measurements of all runs: metrics.csv's columns behind variant, the settings that vary and the seed.

    Args:
        runs: mappings with `metrics` (path of metrics.csv), `variant` (its name in the table), `settings` (dotted
            setting -> value) and `seed` (None where nothing was trained).

    Raises:
        UserError: a table is not there or is not one of metrics.

    """
    parts = []
    for run in runs:
        path = Path(run["metrics"])
        metrics = read_csv(path, ["stage", "split", *SPREAD, *MEAN])
        keys = {"variant": run["variant"], **{k: _cell(v) for k, v in run["settings"].items()}, "seed": run["seed"]}
        parts.append(pd.DataFrame(keys, index=metrics.index).join(metrics))
    return pd.concat(parts, ignore_index=True)


def summary(gathered: pd.DataFrame) -> pd.DataFrame:
    """Take mean and standard deviation (n - 1) over seeds; a row per variant, stage and split, in the order found.

    Args:
        gathered: as `gather` returns it.

    Returns:
        Columns variant, the settings that vary, stage, split, seeds (how many), mAP, mAP_std, mAP_10, mAP_10_std, CF1,
        CF1_std, OF1, OF1_std, inversions, labels_per_image. A deviation over one seed is empty.

    """
    keys = [*gathered.columns[: list(gathered.columns).index("seed")], "stage", "split"]
    groups = gathered.groupby(keys, sort=False, dropna=False)
    columns: dict[str, Any] = {"seeds": groups.size()}
    for name in SPREAD:
        columns[name] = groups[name].mean()
        columns[f"{name}_std"] = groups[name].std()
    columns |= {name: groups[name].mean() for name in MEAN}
    return pd.DataFrame(columns).reset_index()


def differences(table: pd.DataFrame, runs: list[dict[str, Any]], against: str) -> pd.DataFrame:
    """Hold every variant's mAP against one's, with 95 % intervals over images (paired bootstrap).

    Args:
        table: as `summary` returns it.
        runs: as of `gather`; each lies in the folder of its metrics.csv.
        against: label of the variant that the others are held against.

    Returns:
        Columns difference, difference_low, difference_high, in points of mAP, and the same with `difference_10` of
        mAP_10; empty in its own rows, in those of stages that it lacks and without truth.

    """
    folders: dict[str, list[Run]] = {}
    for run in runs:
        folders.setdefault(run["variant"], []).append(Run(Path(run["metrics"]).parent))
    base = folders[against]
    rows = []
    for row in tqdm(table.to_dict("records"), desc="differences", unit="row"):
        of_all = of_common = None
        if row["variant"] != against and stage_of(base[0], row["stage"]) is not None:
            pair = base, folders[row["variant"]], row["stage"], row["split"]
            of_all = of_common = difference(*pair)
            if row["mAP_10"] != row["mAP"]:  # else every class has enough positives
                of_common = difference(*pair, positives=FEW)
        rows.append([*_points(of_all), *_points(of_common)])
    return pd.DataFrame(rows, columns=[*DIFFERENCE, *DIFFERENCE_10], dtype=float)


def _points(result: RunDifference | None) -> tuple[float | None, ...]:
    return result.difference if result is not None else (None, None, None)


def as_text(table: pd.DataFrame) -> str:
    """Set the table as aligned text; what is not known is a dash."""
    shown = table.rename(columns={f"{name}_std": "+-" for name in SPREAD} | SHORT)
    return str(shown.to_string(index=False, na_rep="-", float_format=lambda x: f"{x:.2f}"))


def _cell(value: Any) -> Any:  # noqa: ANN401
    """Write lists and mappings as JSON, so that a column can be grouped by them."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
