"""What is measured of one stage on one split: by blocks of images, then by blocks of classes next to the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cutsew.config.evaluation import EvaluateConfig
from cutsew.errors import some
from cutsew.method.metrics import (
    BINS,
    FEW,
    Confidence,
    Counts,
    Floats,
    Ints,
    average_precision,
    describe_degenerate,
    inversions,
    likeliest,
    mean_average_precision,
    named_likeliest,
)
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import named
from cutsew.storage.manifest import batched_slices
from cutsew.storage.predictions import IMAGES_AT_ONCE, StagePredictions
from cutsew.storage.result_tables import RunThresholds

Row = dict[str, Any]
"""A row of a table: column -> value."""


@dataclass
class StageMeasures:
    """One stage's measures on one split.

    Attributes:
        outcome: the stage.
        split: train or test.
        images: of the split, N.
        chosen: settings.
        decided: decision thresholds.
        rules: whether the labels of each rule of thresholds are measured too.
        confidence: of its probabilities.
        top: (n, k) the likeliest classes of each image, block by block of images.
        blocks: measures of the classes, block by block of classes.
        known: (N,) bool, images with truth.

    """

    outcome: StagePredictions
    split: str
    images: int
    chosen: EvaluateConfig
    decided: RunThresholds
    rules: bool
    confidence: Confidence = field(default_factory=Confidence)
    top: list[npt.NDArray[np.int32]] = field(default_factory=list)
    blocks: list["ClassMeasures"] = field(default_factory=list)
    known: npt.NDArray[np.bool_] | None = None

    @property
    def key(self) -> Row:
        """The first columns of its rows."""
        return {"stage": self.outcome.stage, "split": self.split}

    def add_images(self, z: npt.NDArray[np.float32]) -> None:
        """Measure the (n, C) logits of a block of images."""
        self.confidence.add(sigmoid(z))
        self.top.append(likeliest(z, self.chosen.top))

    def add_classes(self, block: slice, z: npt.NDArray[np.float32], truth: npt.NDArray[np.int8]) -> None:
        """Measure the (N, c) logits of a block of classes of all images."""
        self.top = [np.concatenate(self.top)]
        thresholds = self.decided.of(self.outcome.stage, len(self.outcome.classes))[block]
        predicted = _named(z, thresholds)
        has_truth = np.atleast_1d((truth >= 0).any(axis=1))
        self.known = has_truth if self.known is None else self.known | has_truth
        by_rule = self.decided.by_stage[self.outcome.stage] if self.has_rules else None
        rules = {} if by_rule is None else {rule: by_rule.choose(rule)[block] for rule in by_rule.by_rule}
        named_by_rule = {rule: _named(z, limits) for rule, limits in rules.items()}
        self.blocks.append(
            ClassMeasures(
                average_precision(truth, z),
                inversions(truth, z),
                np.atleast_1d((truth >= 0).any(axis=0)),
                predicted.sum(axis=0),
                Counts.of(truth, predicted),
                Counts.of(truth, named_likeliest(self.top[0], block)),
                {rule: Counts.of(truth, named) for rule, named in named_by_rule.items()},
                {rule: named.sum(axis=0) for rule, named in named_by_rule.items()},
            )
        )

    @property
    def has_rules(self) -> bool:
        """Whether the stage has thresholds by several rules that are measured."""
        return self.rules and self.outcome.stage in self.decided.by_stage

    def classes(self) -> "ClassMeasures":
        """Return the measures of all classes."""
        return ClassMeasures.joined(self.blocks)

    def whole(self) -> Row:
        """Return the row of metrics.csv: columns that need truth are empty without it."""
        classes = self.classes()
        top = classes.top.precision_recall()
        known, common = classes.known.any(), classes.named.positive >= FEW
        with_truth = int(self.known.sum()) if self.known is not None else 0
        remarks = [describe_degenerate(classes.labels, self.images, self.outcome.classes)]
        if known:
            remarks += [_images_measured(with_truth, self.images), _classes_measured(classes, self.outcome.classes)]
        return {
            **self.key,
            "images": self.images,
            "with_truth": with_truth,
            "mAP": mean_average_precision(classes.ap),
            "mAP_classes": int(np.isfinite(classes.ap).sum()) if known else None,
            "mAP_10": mean_average_precision(classes.ap[common]) if common.any() else None,
            "mAP_10_classes": int(common.sum()) if known else None,
            **vars(classes.named.precision_recall()),
            **{f"top{self.chosen.top}_{name}": value for name, value in vars(top).items()},
            "inversions": int(classes.inversions.sum()) if known else None,
            "labels_per_image": float(classes.labels.sum() / self.images),
            "confidence": self.confidence.mean,
            "remark": "; ".join(filter(None, remarks)),
        }

    def per_class(self) -> list[Row]:
        """Return the rows of per_class.csv."""
        classes = self.classes()
        columns = (classes.named.positive, classes.ap, classes.inversions, classes.known, classes.labels)
        return [
            {
                **self.key,
                "class": name,
                "positives": int(n) if has_truth else None,
                "AP": value,
                "inversions": int(count) if has_truth else None,
                "labels": int(labels),
            }
            for name, n, value, count, has_truth, labels in zip(self.outcome.classes, *columns, strict=True)
        ]

    def histogram(self) -> list[Row]:
        """Return the rows of confidence.csv."""
        edges, seen = np.linspace(0, 1, BINS + 1), self.confidence
        return [
            {**self.key, "low": edges[b], "high": edges[b + 1], "top1": int(seen.top1[b]), "every": int(seen.every[b])}
            for b in range(BINS)
        ]

    def of_rules(self) -> list[Row]:
        """Return the rows of thresholds_f1.csv: the labels that each rule of thresholds gives."""
        classes = self.classes()
        return [
            {
                **self.key,
                "rule": rule,
                "images": self.images,
                "labels_per_image": float(classes.labels_by_rule[rule].sum() / self.images),
                "mean_F1": mean_average_precision(counts.f1()),
                **vars(counts.precision_recall()),
            }
            for rule, counts in classes.by_rule.items()
        ]


class ClassMeasures(NamedTuple):
    """Measures of some classes of one stage.

    Attributes:
        ap: average precision.
        inversions: as of `inversions`.
        known: bool, whether any image has truth of the class.
        labels: images that each is named in.
        named: counts of the labels by the stage's decision thresholds.
        top: counts of the likeliest classes of each image.
        by_rule: counts of the labels by other rules of thresholds.
        labels_by_rule: images that each class is named in by these rules.

    """

    ap: Floats
    inversions: Ints
    known: npt.NDArray[np.bool_]
    labels: Ints
    named: Counts
    top: Counts
    by_rule: dict[str, Counts]
    labels_by_rule: dict[str, Ints]

    @classmethod
    def joined(cls, blocks: Sequence["ClassMeasures"]) -> "ClassMeasures":
        """Join blocks of classes."""
        first = blocks[0]
        return cls(
            np.concatenate([block.ap for block in blocks]),
            np.concatenate([block.inversions for block in blocks]),
            np.concatenate([block.known for block in blocks]),
            np.concatenate([block.labels for block in blocks]),
            Counts.joined([block.named for block in blocks]),
            Counts.joined([block.top for block in blocks]),
            {rule: Counts.joined([block.by_rule[rule] for block in blocks]) for rule in first.by_rule},
            {rule: np.concatenate([block.labels_by_rule[rule] for block in blocks]) for rule in first.labels_by_rule},
        )


def _named(z: npt.NDArray[np.float32], thresholds: Floats) -> npt.NDArray[np.bool_]:
    """Return which classes of (N, c) logits are named, a slice at a time: `named` computes in float64."""
    parts = [named(z[rows], thresholds) for rows in batched_slices(len(z), IMAGES_AT_ONCE)]
    return np.concatenate(parts)


def _images_measured(with_truth: int, images: int) -> str:
    """Say how many images the measures are of where some have no truth."""
    return f"measured on the {with_truth} of {images} images with truth" if 0 < with_truth < images else ""


def _classes_measured(measured: ClassMeasures, classes: Sequence[str]) -> str:
    """Say which classes mAP leaves out where it leaves out some but not all."""
    known, positive = measured.known, measured.named.positive > 0
    if positive.all() or not positive.any():
        return ""
    left_out = {
        "no truth for": [name for name, available in zip(classes, known, strict=True) if not available],
        "no image with": [name for name, has_truth in zip(classes, known & ~positive, strict=True) if has_truth],
    }
    why = ", ".join(f"{reason} {some(names)}" for reason, names in left_out.items() if names)
    return f"mAP over {positive.sum()} of {len(classes)} classes: {why}"
