"""A run's numbers compared with published ones, per protocol."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from cutsew.config.dataset import CocoDatasetConfig, LayoutConfig, NusDatasetConfig, VocDatasetConfig, parse_dataset
from cutsew.errors import UserError

KEY = ["split", "stage"]
"""What has to be equal, besides benchmark and protocol, for two numbers to be compared."""


@dataclass(frozen=True)
class Measured:
    """Which benchmark a run was measured on, and how.

    Attributes:
        benchmark: name.
        protocol: name.
        caveats: what is to be kept in mind about the run's numbers, one sentence each.

    """

    benchmark: str
    protocol: str
    caveats: list[str]


def published() -> pd.DataFrame:
    """Read the published numbers.

    A protocol is named if the source states its images: CDUL in its section on datasets, TagCLIP in the list that its
    code evaluates on VOC 2007.

    Returns:
        Columns method, source, benchmark, protocol (`unknown` if the source does not state it), split, stage (as in
        metrics.csv), labels (whether any were used in training), mAP (%), note.

    """
    path = files("cutsew.reporting") / "published.csv"
    with path.open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"mAP": float}, keep_default_na=False)


def join_published(metrics: pd.DataFrame, known: pd.DataFrame, measured: Measured) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join published numbers of one benchmark and protocol with a run's.

    Args:
        metrics: the run's metrics.csv: columns stage, split and mAP (%) at least.
        known: as `published` returns it.
        measured: the run's benchmark and protocol.

    Returns:
        Rows that may stand side by side (split, stage, mAP of the run, published, difference, method, source, labels,
        note; the published columns empty where there is none), and the benchmark's published rows of other protocols,
        which may not.

    """
    of_benchmark = known[known["benchmark"] == measured.benchmark]
    same = of_benchmark["protocol"] == measured.protocol
    published_map = of_benchmark[same].drop(columns=["benchmark", "protocol"]).rename(columns={"mAP": "published"})
    own_map = metrics.loc[metrics["mAP"].notna(), [*KEY, "mAP"]]
    table = own_map.merge(published_map, on=KEY, how="left")
    table["difference"] = table["mAP"] - table["published"]
    first = [*KEY, "mAP", "published", "difference"]
    table = table[first + [name for name in table.columns if name not in first]]
    return table, of_benchmark[~same].reset_index(drop=True)


def protocol_of(run: Path) -> Measured:
    """Return the benchmark and protocol that a run was evaluated on, from its records.

    Raises:
        UserError: the run was not evaluated, or not on a benchmark as published, so its numbers are not comparable.

    """
    record = _record(run / "metrics.json")
    images = _record(_beside(run, record, "images.parquet"))
    truth = _record(_beside(run, record, "truth.parquet"))
    dataset = parse_dataset({**truth["settings"]["dataset"], **images["settings"]["dataset"]})
    known = dataset.known()
    if not isinstance(dataset, LayoutConfig) or dataset.benchmark is None or known is None:
        raise UserError(f"{run}: dataset.benchmark is not set, so there are no published numbers for these images")
    if dataset.allow_incomplete:
        raise UserError(f"{run}: made on an incomplete copy of {dataset.benchmark}; its numbers are not comparable")
    absent = truth.get("facts", {}).get("classes_without_truth", [])
    if absent:
        raise UserError(
            f"{run}: the ground truth lacks {len(absent)} classes, such as {absent[0]!r}, so its mAP does not cover "
            f"the classes of {dataset.benchmark}"
        )
    if isinstance(dataset, CocoDatasetConfig | NusDatasetConfig) and dataset.unannotated != known.unannotated:
        raise UserError(
            f"{run}: dataset.unannotated is {dataset.unannotated}, but protocol {dataset.protocol} of "
            f"{dataset.benchmark} has {known.unannotated}; numbers of different protocols are not comparable"
        )
    if isinstance(dataset, VocDatasetConfig) and dataset.difficult != "negative":
        raise UserError(
            f"{run}: dataset.difficult is {dataset.difficult}, but the published numbers use negative; "
            "numbers of different protocols are not comparable"
        )
    return Measured(dataset.benchmark, dataset.protocol, _caveats(images["facts"]))


def _caveats(facts: Mapping[str, Any]) -> list[str]:
    skipped = facts.get("skipped", 0)
    return [f"{skipped} listed images could not be read and are not among those measured"] if skipped else []


def _beside(run: Path, record: dict[str, Any], name: str) -> Path:
    """Return the record of an artifact that a record names among its inputs."""
    result = next((str(path) for path in record["inputs"] if Path(path).name == name), None)
    if result is None:
        raise UserError(f"{run}: was evaluated without ground truth; there is nothing to compare")
    return (run / result).with_suffix(".json")


def _record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: no readable record; name the folder of a finished run") from None
    return record
