"""Everything recorded about one image, from its views to the student.

- Where a training image was sewn. Plans are recomputed: they depend only on seed, epoch and content.
- Everything recorded about one image: views, fusion, correction, sewing, EM, student.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from cutsew.audit.run import PATCHES, Run
from cutsew.audit.summary import BY_HAND, TRUTH_TEXT, JsonDict, format_score
from cutsew.audit.views import Cutting, cutting
from cutsew.config.method import Sew, parse_correct, parse_sew
from cutsew.config.training import parse_train
from cutsew.errors import UserError
from cutsew.method.correct import LEFT
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import named
from cutsew.provenance.record import input_digest
from cutsew.storage.predictions import FINAL, REFERENCE
from cutsew.storage.tables import read_parquet
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read
from cutsew.training.sewing_plan import TrainingImages, read_training_images, sewing_plan

BAR_FROM = 20_000
"""Plans from which drawing them shows a progress bar: some seconds."""


def patches_of(run: Run, name: str) -> list[JsonDict]:
    """List the places of an image in the patch set: class, rank from 0, salience, and k, the images per class."""
    path = run.path(PATCHES)
    if path is None:
        return []
    table = read_parquet(path, ["class", "rank", "image", "score"])
    k = int(table["rank"].max()) + 1 if len(table) else 0
    return [
        {"class": str(row["class"]), "rank": int(row["rank"]), "score": float(row["score"]), "of": k}
        for row in table[table["image"] == name].to_dict("records")
    ]


def sewn(run: Run, name: str, epochs: int | None = None) -> JsonDict | None:
    """List what was pasted onto a training image, and what it was pasted onto.

    Args:
        run: the run.
        name: the image's id.
        epochs: how many epochs to look through; None for all.

    Returns:
        `as_background`: epoch, overlays (image and box, bottom first; none in some epochs); `as_overlay`: epoch,
        background and box. Boxes are left, top, right, bottom in pixels of the background. None where no student was
        trained, or the image is not a training image.

    Raises:
        UserError: the patches are missing or not those that were pasted, so the plans cannot be recomputed.

    """
    trained = "refined.zarr"
    result = run.record(trained)
    image_rows = run.images[run.images["split"] == "train"].reset_index(drop=True)
    if result is None or result.stage != "train" or not (image_rows["id"] == name).any():
        return None
    sew, train = (
        run.settings(trained, "sew", parse_sew),
        run.settings(trained, "train", parse_train),
    )
    sewn_epochs = int(result.content["facts"]["sewn_epochs"])
    looked = min(sewn_epochs, epochs or sewn_epochs)
    pasted = [path for path in result.inputs if path.name == PATCHES]
    for path in pasted:
        if path.is_file() and input_digest(path) != result.inputs[path]:
            raise UserError(f"{path}: not the file that training pasted from; run the workflow again")
    training = read_training_images(image_rows, pasted[0] if sew.kind != "none" and pasted else None)
    place, ids = int((image_rows["id"] == name).to_numpy().argmax()), image_rows["id"].tolist()
    return {
        "enabled": sew.kind != "none",
        "seed": train.seed,
        "epochs": sewn_epochs,
        "epochs_looked_through": looked,
        "as_background": _as_background(training, sew, train.seed, looked, place, ids),
        "as_overlay": _as_overlay(training, sew, train.seed, looked, place, ids),
    }


def _as_background(
    training: TrainingImages, sew: Sew, seed: int, epochs: int, place: int, ids: list[str]
) -> list[JsonDict]:
    rows: list[JsonDict] = []
    for epoch in range(0 if sew.kind == "none" else epochs):
        drawn = sewing_plan(training, sew, seed, epoch, place)
        pairs = zip(drawn.overlays.tolist(), drawn.boxes.tolist(), strict=True)
        rows.append({"epoch": epoch, "overlays": [{"image": ids[other], "box": box} for other, box in pairs]})
    return rows


def _as_overlay(
    training: TrainingImages, sew: Sew, seed: int, epochs: int, place: int, ids: list[str]
) -> list[JsonDict]:
    """Look through the plans of all images; none need be drawn for an image that is not in the patch set."""
    if sew.kind == "none" or place not in training.paste_pool:
        return []
    rows: list[JsonDict] = []
    plans = ((epoch, other) for epoch in range(epochs) for other in range(len(ids)))
    total = epochs * len(ids)
    for epoch, other in tqdm(plans, desc="sewing plans", total=total, unit="plan", disable=total < BAR_FROM):
        drawn = sewing_plan(training, sew, seed, epoch, other)
        for overlay, box in zip(drawn.overlays.tolist(), drawn.boxes.tolist(), strict=True):
            if overlay == place:
                rows.append({"epoch": epoch, "background": ids[other], "box": box})
    return rows


Logits = npt.NDArray[np.float32]

TRUTH_IS_FOR = "the audit only: no label of the method was made from it"
MOVED = 0.05
"""Change of a probability by EM from which a class is of interest."""


def image_audit(run: Run, name: str, only: str | None = None, top: int = 3, epochs: int | None = None) -> JsonDict:
    """Return everything recorded about one image.

    Args:
        run: the run.
        name: the image's id.
        only: the one class of interest; None for those that a stage names, a crop was sure of, EM moved, or are true.
        top: classes listed for each view.
        epochs: how many epochs of sewing to look through; None for all.

    Raises:
        UserError: no such image or class.

    """
    row = run.image(name)
    chosen = None if only is None else run.class_number(only)
    cut, labels = cutting(run, name), _labels(run, row)
    known = run.truth([name])
    truth = known[0] if known is not None else None
    marks = _marks(run, name)
    thresholds = {stage: run.thresholds_of(stage, str(row["split"])) for stage in labels}
    interest = [chosen] if chosen is not None else _of_interest(run, cut, (labels, thresholds), marks, truth)
    return {
        "run": str(run.folder),
        "image": _facts(row),
        "named_by": run.thresholds.in_words(),
        "labels": {stage: _named(run, z, thresholds[stage]) for stage, z in labels.items()},
        "truth": _truth(run, truth),
        "views": cut.views(run.classes, top),
        "fusion": cut.fusion,
        "correction": run.settings("pseudo.zarr", "correct", parse_correct).model_dump(mode="json"),
        "classes": [_class(run, c, cut, labels, marks, truth) for c in interest],
        "patches": patches_of(run, name),
        "sewn": sewn(run, name, epochs),
    }


def _facts(row: pd.Series) -> JsonDict:
    """Return what the manifest says, as plain values."""
    plain = {str(name): value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    return {name: plain[name] for name in ("id", "path", "split", "width", "height", "shard", "row", "digest")}


def _labels(run: Run, row: pd.Series) -> dict[str, Logits]:
    """Read the (C,) logits of every stage that has the image: the method's, reference students', then FINAL."""
    held_out = row["split"] == "test"
    apart = ("overridden", "refined") if held_out else ("student", "tiles", "ensemble")
    stages = [stage for stage in run.outcomes if stage not in apart and (held_out or not stage.startswith(REFERENCE))]
    logits = {stage: run.outcomes[stage].read([str(row["id"])])[0] for stage in stages}
    if run.final is not None:
        logits[FINAL] = run.final.read([str(row["id"])])[0]
    return {stage: z for stage, z in logits.items() if np.isfinite(z).all()}


def _named(run: Run, z: Logits, thresholds: npt.NDArray[np.float64]) -> list[str]:
    """Return the classes at or above their thresholds, most confident first."""
    chosen = named(z, thresholds)
    return [run.classes[c] for c in np.argsort(-sigmoid(z), kind="stable") if chosen[c]]


def _truth(run: Run, truth: npt.NDArray[np.int8] | None) -> JsonDict | None:
    if truth is None:
        return None
    present, unknown = ([run.classes[c] for c in np.flatnonzero(truth == value)] for value in (1, -1))
    return {"read_for": TRUTH_IS_FOR, "present": present, "not_counted": unknown}


def _marks(run: Run, name: str) -> dict[str, npt.NDArray[np.int8]]:
    """Read which classes of an image were `corrected`, and which were set `by_hand`."""
    marks = {}
    path = run.path("pseudo.zarr")
    if path is not None and "corrected" in (group := open_group(path)):
        row = labels_of(group, "image").index(name)
        marks["corrected"] = np.asarray(read(array_of(group, "corrected"), row), dtype=np.int8)
    if run.corrections is not None:
        marks["by_hand"] = run.corrections.said([name])[0]
    return marks


def _of_interest(
    run: Run,
    cut: Cutting,
    stages: tuple[dict[str, Logits], dict[str, npt.NDArray[np.float64]]],
    marks: dict[str, npt.NDArray[np.int8]],
    truth: npt.NDArray[np.int8] | None,
) -> list[int]:
    """Choose the classes to report, most confident at the last stage first; `stages` are logits and thresholds."""
    labels, thresholds = stages
    chosen = np.zeros(len(run.classes), dtype=bool)
    for stage, z in labels.items():
        chosen |= named(z, thresholds[stage])
        chosen[z.argmax()] = True
    if len(cut.counted) and np.isfinite(cut.counted).all():
        chosen |= named(cut.counted, run.thresholds.of("fused", len(run.classes))).any(axis=0)
    if "refined" in labels and (start := labels_before_em(run)) in labels:
        chosen |= np.abs(sigmoid(labels["refined"]) - sigmoid(labels[start])) >= MOVED
    if "by_hand" in marks:
        chosen |= marks["by_hand"] != LEFT
    if truth is not None:
        chosen |= truth == 1
    local_values = [z for stage, z in labels.items() if not stage.startswith(REFERENCE)]
    order = np.argsort(-local_values[-1], kind="stable") if local_values else np.arange(len(run.classes))
    return [int(c) for c in order if chosen[c]]


def labels_before_em(run: Run) -> str:
    """Name the stage whose labels the training began with."""
    result = run.record("refined.zarr")
    names = {path.name for path in result.inputs} if result is not None else set[str]()
    stages = [stage for stage in ("overridden", "targets", "pseudo", "fused") if f"{stage}.zarr" in names]
    return stages[0] if stages else ("zero_shot" if "logits.zarr" in names else "pseudo")


def _class(
    run: Run,
    c: int,
    cut: Cutting,
    labels: dict[str, Logits],
    marks: dict[str, npt.NDArray[np.int8]],
    truth: npt.NDArray[np.int8] | None,
) -> JsonDict:
    """Return one class's logits at every stage."""
    content: JsonDict = {"class": run.classes[c], **cut.of_class(c)}
    if "corrected" in marks:
        content["corrected"] = bool(marks["corrected"][c])
    if "by_hand" in marks:
        content["by_hand"] = BY_HAND[int(marks["by_hand"][c])]
    content |= {stage: format_score(z[c]) for stage, z in labels.items() if stage not in ("zero_shot", "fused")}
    if "refined" in labels and (start := labels_before_em(run)) in labels:
        moved: Any = labels["refined"][c] - labels[start][c]
        train = run.settings("refined.zarr", "train", parse_train)
        again = train.head == "adapter" and train.correct_refined
        content["em"] = {"from": start, "moved_logit": float(moved), "corrected_again": again}
    if truth is not None:
        content["truth"] = TRUTH_TEXT[int(truth[c])]
    return content
