"""CSV tables that stages write and read: metrics, decision thresholds, score statistics.

- metrics.csv as text for a terminal, and what it remarks on.
- thresholds.csv: per-class decision thresholds by every rule, and the number of images that each predicts.
- ensemble.csv and tiles.csv: score statistics of two models, mean and standard deviation of each class's logits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cutsew.errors import UserError, printable
from cutsew.method.ensemble import ScoreStats
from cutsew.method.thresholds import FIXED, named
from cutsew.storage.csv_rows import write_csv

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
    remarked = table[table["remark"].astype(object).fillna("") != ""]
    grouped: dict[tuple[str, str], list[str]] = {}
    for stage, split, text in zip(remarked["stage"], remarked["split"], remarked["remark"], strict=True):
        for remark in str(text).split("; "):
            grouped.setdefault((str(split), remark), []).append(str(stage))
    return [f"{', '.join(stages)}, {split}: {remark}" for (split, remark), stages in grouped.items()]


TABLE = "thresholds.csv"
LABELS = "labels"
"""The rule that uses labels."""

MEANINGS = {
    "fixed": "a class is a label from probability {fixed:g} on",
    "count": "each class becomes a label of as many images as estimated without true labels",
    "mixture": "a class is a label from where the upper of two Gaussians of its logits is likelier",
    LABELS: "each class's threshold of highest F1, which uses true labels",
}
"""Rule of thresholds -> what it means."""

STUDENT = ("student", "tiles", "ensemble")
"""Stages whose logits are on the student's scale, so that its thresholds hold for them."""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of C classes by several rules.

    Attributes:
        rule: the default.
        by_rule: rule -> C probabilities in [0, 1].

    """

    rule: str
    by_rule: dict[str, list[float]]

    def choose(self, rule: str | None = None) -> npt.NDArray[np.float64]:
        """Return the (C,) thresholds of a rule; None for the default.

        Raises:
            UserError: there is no such rule.

        """
        requested = rule or self.rule
        if requested not in self.by_rule:
            raise UserError(f"--rule: this model has no thresholds {requested}; it has {', '.join(self.by_rule)}")
        return np.array(self.by_rule[requested])

    def in_words(self, rule: str | None = None) -> str:
        """Name a rule, None for the default, and what it means."""
        return rule_in_words(rule or self.rule, self.by_rule.get("fixed", [FIXED])[0])


class StageThresholds(NamedTuple):
    """What thresholds.csv holds of one stage.

    Attributes:
        stage: its name.
        thresholds: by every rule, or by some of them.
        images: how many images they were chosen on.
        named: rule -> (C,), of how many of these images each class is a label.
        share: (C,) expected share of images, in [0, 1].

    """

    stage: str
    thresholds: Thresholds
    images: int
    named: Mapping[str, Sequence[int]]
    share: Sequence[float]

    @classmethod
    def of_logits(
        cls, stage: str, thresholds: Thresholds, logits: npt.NDArray[np.float32], share: Sequence[float]
    ) -> "StageThresholds":
        """Count the labels of (N, C) logits under each rule."""
        counts = {rule: named(logits, thresholds.choose(rule)).sum(axis=0).tolist() for rule in thresholds.by_rule}
        return cls(stage, thresholds, len(logits), counts, share)

    @classmethod
    def joined(cls, blocks: Sequence["StageThresholds"]) -> "StageThresholds":
        """Join the thresholds of blocks of classes of one stage."""
        stage, first, images, named, _ = blocks[0]
        by_rule = {rule: [x for block in blocks for x in block.thresholds.by_rule[rule]] for rule in first.by_rule}
        counts = {rule: [n for block in blocks for n in block.named[rule]] for rule in named}
        return cls(stage, Thresholds(first.rule, by_rule), images, counts, [s for block in blocks for s in block.share])


def plain(classes: int) -> Thresholds:
    """Return 0.5 for each of C classes."""
    return Thresholds("fixed", {"fixed": [FIXED] * classes})


def rule_in_words(rule: str, fixed: float = FIXED) -> str:
    """Name a rule of thresholds and what it means, in one short phrase."""
    return f"{rule}: {MEANINGS[rule].format(fixed=fixed)}" if rule in MEANINGS else rule


@dataclass(frozen=True)
class RunThresholds:
    """The thresholds of all stages of a run. One rule chooses them: a class is a label from its threshold on.

    Attributes:
        fixed: threshold of stages that `by_stage` lacks, such as reference students.
        by_stage: stage -> its thresholds.

    """

    fixed: float = FIXED
    by_stage: Mapping[str, Thresholds] = field(default_factory=dict)

    def of(self, stage: str, classes: int) -> npt.NDArray[np.float64]:
        """Return a stage's (C,) thresholds."""
        chosen = self.by_stage.get("student" if stage in STUDENT else stage)
        return chosen.choose() if chosen is not None else np.full(classes, self.fixed)

    @property
    def rule(self) -> str:
        """The rule of the run."""
        return next((chosen.rule for chosen in self.by_stage.values()), "fixed")

    def in_words(self, stage: str | None = None) -> str:
        """Name the rule of a stage, or of the run, and what it means."""
        known = stage is None or ("student" if stage in STUDENT else stage) in self.by_stage
        return rule_in_words(self.rule if known else "fixed", self.fixed)


def write_thresholds(path: Path, classes: list[str], thresholds: Sequence[StageThresholds]) -> None:
    """Write the table: a row per stage and class. A rule that a stage lacks is empty there."""
    rules = list(dict.fromkeys(rule for row in thresholds for rule in row.thresholds.by_rule))
    parts = []
    for stage, chosen, images, counts, share in thresholds:
        part = pd.DataFrame({"stage": stage, "class": classes, "chosen": chosen.choose(), "rule": chosen.rule})
        for rule in rules:
            part[rule] = chosen.by_rule.get(rule, np.full(len(classes), np.nan))
        part["images"], part["expected"] = images, [s * images for s in share]
        for rule in rules:
            part[f"named_{rule}"] = pd.array(counts.get(rule, [pd.NA] * len(classes)), dtype="Int64")
        parts.append(part)
    write_csv(path, pd.concat(parts, ignore_index=True))


def read_thresholds(path: Path, classes: list[str]) -> dict[str, Thresholds]:
    """Read the table: stage -> its thresholds.

    Raises:
        UserError: it is no such table, or not one of these classes.

    """
    try:
        table = pd.read_csv(path, dtype={"class": str, "stage": str}, keep_default_na=False)
        rules = [name.removeprefix("named_") for name in table.columns if name.startswith("named_")]
        by_stage, same = {}, len(table) > 0
        for stage, rows in table.groupby("stage", sort=False):
            present = [rule for rule in rules if (rows[rule].astype(str) != "").all()]
            by_rule = {rule: [float(value) for value in rows[rule]] for rule in present}
            by_stage[str(stage)] = Thresholds(str(rows["rule"].iloc[0]), by_rule)
            same &= rows["class"].tolist() == classes
    except (OSError, ValueError, KeyError, IndexError):
        raise UserError(f"{path}: not a table of thresholds; run the workflow again to make it") from None
    if not same:
        raise UserError(f"{path}: its classes are not the model's; run the workflow again to make it")
    return by_stage


ENSEMBLE, TILES = "ensemble.csv", "tiles.csv"
MODELS = {ENSEMBLE: ("student", "teacher"), TILES: ("student", "tiles")}
"""Name of the table -> the models in it."""


def sample(train: pd.DataFrame, most: int) -> pd.DataFrame:
    """Choose at most `most` of the manifest's training images, spread evenly, for the score statistics."""
    return train.iloc[np.unique(np.linspace(0, len(train) - 1, min(len(train), most)).round().astype(int))]


def write_score_statistics(path: Path, classes: list[str], stats: Mapping[str, ScoreStats]) -> None:
    """Write the table: column class, and of each model `<model>_mean` and `<model>_std`."""
    table = pd.DataFrame({"class": classes})
    for model, stats_of_model in stats.items():
        table[f"{model}_mean"], table[f"{model}_std"] = stats_of_model.mean, stats_of_model.std
    write_csv(path, table)


def read_score_statistics(path: Path, classes: Sequence[str]) -> dict[str, ScoreStats]:
    """Read a table of score statistics for each of its MODELS, which its name determines.

    Raises:
        UserError: it is no such table, or not one of these classes.

    """
    try:
        table = pd.read_csv(path, dtype={"class": str}, keep_default_na=False)
        same = table["class"].tolist() == list(classes)
        stats = {m: ScoreStats(*table[[f"{m}_mean", f"{m}_std"]].to_numpy(float).T) for m in MODELS[path.name]}
    except (OSError, ValueError, KeyError):
        raise UserError(f"{path}: not a table of score statistics; run the workflow again to make it") from None
    if not same:
        raise UserError(f"{path}: its classes are not the model's; run the workflow again to make it")
    return stats
