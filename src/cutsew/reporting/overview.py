"""The top of the report: what was found, what looks wrong and how to fix it, and which values `auto` stood for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cutsew.errors import counted, some
from cutsew.method.metrics import describe_degenerate
from cutsew.method.schedule import FEWEST_STEPS, longer_training
from cutsew.reporting.cards import Card
from cutsew.reporting.run_data import Ints, Labels, Run
from cutsew.reporting.selection import BY_CHANCE
from cutsew.reporting.style import STAGE_TITLES

FAR_BELOW = 2.0
"""Points of mAP that a student may lie below the fused labels before the report warns."""

LEAST_IMAGES = 10
"""Labeled training images that a class should have. With 150 images of VOC and COCO, the student's AP of the 10 classes
below was 15 points behind the fused labels', and of the other 10 it was 7 behind; together with the teacher, it was 4
points ahead and 1 behind."""

EXPECTED = 5
"""Images of a class that a split should have, by its share of all images, before the lack of any is warned of: by
chance that happens in fewer than one in a hundred."""

THUMBNAILS = 8

Records = Iterable[Mapping[str, Any]]


class RunWarning(NamedTuple):
    """Something that looks wrong, and what to do about it."""

    text: str
    advice: str


def summary_sentence(run: Run, labels: Mapping[str, Labels]) -> str:
    """Say in one sentence what was found on all images; `labels` are those of the last stage, counted by split."""
    counts, images = _together(labels)
    most = [c for c in np.argsort(-counts, kind="stable")[:3] if counts[c]]
    named = ", ".join(f"{run.classes[c]} ({counts[c]:,})" for c in most)
    often = f", most often {named}" if named else ""
    empty = sum(int(each.sizes[0]) for each in labels.values())
    none = f"; {counted(empty, 'has', 'have')} none" if empty else ""
    total = sum(each.total for each in labels.values())
    return f"{counted(images, 'image', 'images')} with {total / images:.1f} labels on average{often}{none}."


def where_labels_are_from(run: Run) -> str:
    """Name the stage that each split's labels are from."""
    kinds = {"train": "training", "test": "held-out"}
    parts = [f"{STAGE_TITLES[stages[-1]]} ({kinds[split]} images)" for split, stages in run.stages.items()]
    return f"Labels are those of stage {' and '.join(parts)}"


def _together(labels: Mapping[str, Labels]) -> tuple[Ints, int]:
    """Return how many images of all splits have each class, (C,), and how many images there are."""
    counts = np.sum([each.counts for each in labels.values()], axis=0)
    return counts, sum(each.images for each in labels.values())


def thumbnails(cards: Iterable[Card], split: str) -> list[Card]:
    """Choose labeled images of a split for the top: those drawn by chance, then the others."""
    shown = [card for card in cards if card.split == split and card.image is not None and card.named_by(-1)]
    return sorted(shown, key=lambda card: BY_CHANCE not in card.why)[:THUMBNAILS]


def find_warnings(
    run: Run,
    metrics: pd.DataFrame,
    labels: Mapping[str, Labels],
    records: Records,
    copies: Sequence[tuple[str, str]] = (),
) -> list[RunWarning]:
    """List what looks wrong with a run.

    Args:
        run: the run.
        metrics: metrics.csv.
        labels: those of the last stage, counted by split.
        records: of everything that the report was made from.
        copies: (held-out id, training id) of held-out images that are nearly a training image.

    """
    by_stage = {content["stage"]: content for content in records}
    facts = {stage: content.get("facts", {}) for stage, content in by_stage.items()}
    head = by_stage.get("train", {}).get("settings", {}).get("train", {}).get("head", "adapter")
    weak = list(_of_student(metrics, head))
    return [
        *weak,
        *_of_steps(facts, longer_training(head)),
        *(_of_few_images(run, labels, told=bool(weak)) if "train" in by_stage else []),
        *_of_labels(run, labels),
        *_of_copies(copies),
        *_of_files(facts),
    ]


USE_FUSED = "use the fused labels (cutsew labels --stage fused) or student and teacher together"
TOGETHER = "(predict.ensemble: teacher)"


def _of_student(metrics: pd.DataFrame, head: str) -> Iterator[RunWarning]:
    ap = metrics[metrics["split"] == "test"].set_index("stage").get("mAP", pd.Series(dtype=float)).dropna()
    if "student" not in ap:
        return
    together = f"(mAP {ap['ensemble']:.1f})" if "ensemble" in ap else TOGETHER
    better = "Add images" if head == "linear" else f"Set method: cutsew, or {longer_training(head)} for more steps"
    advice = f"{better}; until then, {USE_FUSED} {together}."
    if "zero_shot" in ap and ap["student"] < ap["zero_shot"]:
        yield RunWarning(f"The student (mAP {ap['student']:.1f}) is below zero-shot ({ap['zero_shot']:.1f}).", advice)
    elif "fused" in ap and ap["student"] < ap["fused"] - FAR_BELOW:
        yield RunWarning(
            f"The student (mAP {ap['student']:.1f}) is far below the fused labels ({ap['fused']:.1f}).", advice
        )


def _of_few_images(run: Run, by_split: Mapping[str, Labels], *, told: bool) -> Iterator[RunWarning]:
    """Warn of classes of few training images, which can be told without truth; `told` where the cure was named."""
    if "train" not in by_split:
        return
    counts = by_split["train"].counts
    few = [c for c in np.argsort(counts, kind="stable") if 0 < counts[c] < LEAST_IMAGES]
    if few:
        names = some([f"{run.classes[c]} ({counts[c]})" for c in few], 3)
        yield RunWarning(
            f"Fewer than {LEAST_IMAGES} training images are labeled with {names}.",
            "The student hardly learns them: add images." + ("" if told else f" Until then, {USE_FUSED} {TOGETHER}."),
        )


def _of_steps(facts: Mapping[str, Mapping[str, Any]], longer: str) -> Iterator[RunWarning]:
    steps = facts.get("train", {}).get("steps")
    if steps is not None and steps < FEWEST_STEPS:
        yield RunWarning(f"The student was trained for {steps} steps only.", f"Set {longer}.")


def _of_labels(run: Run, by_split: Mapping[str, Labels]) -> Iterator[RunWarning]:
    """Warn of the main split's labels; a class that it lacks counts where the others let expect it."""
    labels, stage = by_split[run.main], STAGE_TITLES[run.stages[run.main][-1]]
    counts = labels.counts
    degenerate = describe_degenerate(counts, labels.images, run.classes)
    if degenerate:
        advice = "Check the class names and prompts, the teacher, and that the images are those you meant."
        yield RunWarning(f"{degenerate[0].upper()}{degenerate[1:]} ({stage}, {run.main} images).", advice)
        return
    everywhere, images = _together(by_split)
    expected = everywhere * labels.images / images
    unseen = (counts == 0) & ((everywhere == 0) | (expected >= EXPECTED))
    never = [name for name, lacks in zip(run.classes, unseen, strict=True) if lacks]
    always = [name for name, count in zip(run.classes, counts, strict=True) if count == labels.images]
    if never and labels.images > 1:
        advice = "Give other wordings (prompts.names) if images show it, or remove it from classes."
        yield RunWarning(f"Never predicted on {run.main} images: {some(never)}.", advice)
    if always and labels.images > 1:
        advice = "Give a more specific wording (prompts.names), or background words (prompts.background)."
        yield RunWarning(f"Predicted on every {run.main} image: {some(always)}.", advice)


def _of_copies(copies: Sequence[tuple[str, str]]) -> Iterator[RunWarning]:
    if copies:
        held, train = copies[0]
        number = counted(len(copies), "held-out image is", "held-out images are")
        yield RunWarning(
            f"{number} nearly the same as a training image ({held} and {train}).",
            "Metrics on such images flatter the student: hold out all copies or none (dataset.test.list).",
        )


def _of_files(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[RunWarning]:
    rows = facts.get("manifest", {}).get("left", [])
    if rows:
        count = sum(int(row["count"]) for row in rows)
        kinds = some(list(dict.fromkeys(str(row["label"]) for row in rows)))
        advice = "See the table under Files; convert those that you need, and run again."
        yield RunWarning(f"{counted(count, 'file was', 'files were')} left out ({kinds}).", advice)


def resolved(records: Records) -> str:
    """List the numbers that a run trained with, marked `(auto)` where they were not set; empty without a training."""
    by_stage = {content["stage"]: content for content in records}
    parts = []
    for stage, name, fact, where in (
        ("train", "steps", "steps", ("train", "epochs")),
        ("train", "learning rate", "rate", ("train", "lr")),
        ("select", "top_k", "top_k", ("select", "top_k")),
        ("targets", "labels per image", "count", ("targets", "labels_per_image")),
    ):
        content = by_stage.get(stage, {})
        value = content.get("facts", {}).get(fact)
        if value is not None:
            chosen = content["settings"].get(where[0], {}).get(where[1])
            number = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
            parts.append(f"{name} {number}" + (" (auto)" if chosen == "auto" else ""))
    return ", ".join(parts) if "train" in by_stage else ""
