"""The gallery's cards and their thumbnails.

- Images, small, as they stand in the page.
- The gallery's cards: an image, what every stage says about it, and the crops that made the difference.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cutsew.data.images import BadImage, read_image
from cutsew.method.correct import LEFT
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import named
from cutsew.reporting.run_data import Run
from cutsew.storage.image_ids import ImageIds, image_ids
from cutsew.storage.predictions import FINAL
from cutsew.storage.zarr_reader import array_of, open_group, read_rows

SIDE = 420
"""Longest side of a photo of the gallery, in pixels."""

QUALITY = 78


def thumbnail(path: str, side: int = SIDE) -> Image.Image | None:
    """Read an image, small; None where it is not there or damaged: a report is made without it."""
    try:
        image = read_image(path, 2 * side)
    except BadImage:
        return None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def data_uri(image: Image.Image) -> str:
    """Encode an image as a JPEG that stands in the page itself."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


MARKS = {(True, 1): "right", (True, 0): "wrong", (False, 1): "missed"}
"""(named, truth) -> how it is marked; nothing where there is no truth, or nothing was said and nothing is there."""


@dataclass(frozen=True)
class Crop:
    """The crop whose answer won for a class.

    Attributes:
        number: of the pass.
        score: the probability that it gave, in [0, 1]; None where only the fused answer is known.
        whole: the probability that the whole image gave.
        box: left, top, width and height in pixels of the image; None where the teacher looked elsewhere.
        flipped: whether it was seen mirrored.

    """

    number: int
    score: float | None
    whole: float
    box: tuple[float, float, float, float] | None
    flipped: bool


@dataclass(frozen=True)
class Label:
    """A class that some stage names, or that is true.

    Attributes:
        name: of the class.
        place: its index.
        probabilities: in [0, 1], one per stage.
        named: per stage, whether it is at or above the stage's threshold.
        truth: 1 present, 0 absent, -1 not known.
        crop: that won, None where the whole image did.
        by_hand: what a human said: PRESENT, ABSENT, or LEFT for nothing.

    """

    name: str
    place: int
    probabilities: tuple[float, ...]
    named: tuple[bool, ...]
    truth: int
    crop: Crop | None
    by_hand: int = LEFT

    @property
    def marks(self) -> tuple[str, ...]:
        """Per stage: right, wrong, missed, or nothing."""
        return tuple(MARKS.get((named, self.truth), "") for named in self.named)

    @property
    def gained(self) -> bool:
        """Whether the last stage names it and the first does not."""
        return self.named[-1] and not self.named[0]


@dataclass(frozen=True)
class Card:
    """One image.

    Attributes:
        id: of the image.
        split: train or test.
        width: of the image in pixels.
        height: of the image in pixels.
        image: small, None where it cannot be read.
        stages: names of the stages.
        labels: those that a human corrected first, then the likeliest at the last stage.
        why: it was chosen.
        figures: `gained` and `lost` labels, and `bits`: how unsure the last stage is.

    """

    id: str
    split: str
    width: int
    height: int
    image: Image.Image | None
    stages: tuple[str, ...]
    labels: tuple[Label, ...]
    why: tuple[str, ...] = ()
    figures: tuple[tuple[str, float], ...] = ()

    @property
    def source(self) -> str:
        """The image as a data URI, empty where there is none."""
        return data_uri(self.image) if self.image is not None else ""

    @property
    def framed(self) -> list[Label]:
        """The labels with a crop to draw; those that only the last stage names come first."""
        return sorted((x for x in self.labels if x.crop and x.crop.box), key=lambda x: not x.gained)

    def named_by(self, stage: int) -> list[tuple[str, str]]:
        """List (class, mark) of what a stage, given by its index, names; the likeliest first."""
        named = sorted((label for label in self.labels if label.named[stage]), key=lambda x: -x.probabilities[stage])
        return [(label.name, label.marks[stage]) for label in named]


class Crops:
    """Which crop won for which class.

    Args:
        fused: fused.zarr, for the winners.
        logits: logits.zarr, for their scores.
        views: views.zarr, for their boxes; None where the teacher looked elsewhere.

    Raises:
        UserError: one of them is not there or is damaged.

    """

    def __init__(self, fused: Path, logits: Path, views: Path | None = None) -> None:
        group, scored = open_group(fused), open_group(logits)
        self._winner = array_of(group, "winner")
        self._rows = ImageIds(image_ids(group))
        self._scored = scored
        self._boxes = array_of(open_group(views), "boxes") if views is not None else None

    def read(self, ids: Sequence[str], zero_shot: npt.NDArray[Any]) -> list[dict[int, Crop]]:
        """Return, for each of n images, class index -> the crop that won; (n, C) `zero_shot` are probabilities."""
        rows = self._rows.find(ids)
        winners = read_rows(self._winner, rows)
        scores = self._scores(rows, winners)
        boxes_of_all = read_rows(self._boxes, slice(None), rows) if self._boxes is not None else None
        result = []
        for i, won in enumerate(winners):
            boxes = boxes_of_all[:, i] if boxes_of_all is not None else None
            crops = {}
            for c in np.flatnonzero(won >= 0):
                k = int(won[c])
                left, top, right, bottom, flip = (float(x) for x in boxes[k]) if boxes is not None else (0.0,) * 5
                box = (left, top, right - left, bottom - top) if boxes is not None else None
                score = float(scores[i, c]) if scores is not None else None
                crops[int(c)] = Crop(k, score, float(zero_shot[i, c]), box, bool(flip))
            result.append(crops)
        return result

    def _scores(self, rows: npt.NDArray[Any], winners: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Return (n, C) probabilities of the crops that won; None where logits.zarr holds no crops."""
        if "crops" in self._scored:
            crops = read_rows(array_of(self._scored, "crops"), slice(None), rows)
            won = np.maximum(winners, 0).astype(np.int64)[None]
            return sigmoid(np.take_along_axis(crops, won, axis=0)[0]) if len(crops) else None
        if "highest" not in self._scored:
            return None
        z = read_rows(array_of(self._scored, "highest"), rows)
        if "lowest" in self._scored:  # rule cdul: where no crop shows the class, the lowest one won
            of_highest = winners == read_rows(array_of(self._scored, "highest_view"), rows)
            z = np.where(of_highest, z, read_rows(array_of(self._scored, "lowest"), rows))
        return sigmoid(z)


def gather(
    run: Run,
    ids: Sequence[str],
    crops: Crops,
    about: Mapping[str, dict[str, Any]] | None = None,
    side: int = SIDE,
) -> list[Card]:
    """Gather what is said about some images.

    Args:
        run: the run.
        ids: of the images.
        crops: that won.
        about: id -> further attributes of its card.
        side: longest side of a photo, in pixels.

    """
    cards: dict[str, Card] = {}
    images = run.images[run.images["id"].isin(list(ids))]
    for split, rows in images.groupby("split", sort=False):
        stages = run.shown_stages(str(split))
        if not stages:
            continue
        names = list(rows["id"])
        z = [run.final(str(split), names) if stage == FINAL else run.read(stage, names) for stage in stages]
        p = np.stack([sigmoid(values) for values in z], axis=1)  # (n, stages, C)
        thresholds = [run.thresholds_of(stage, str(split)) for stage in stages]
        labels = np.stack([named(values, limits) for values, limits in zip(z, thresholds, strict=True)], axis=1)
        won = crops.read(names, p[:, 0]) if stages[0] == "zero_shot" else [{} for _ in names]
        everything = zip(rows.to_dict("records"), p, labels, run.truth(names), won, run.said(names), strict=True)
        for row, probabilities, chosen, truth, marks, corrected in everything:
            cards[row["id"]] = Card(
                row["id"],
                row["split"],
                int(row["width"]),
                int(row["height"]),
                thumbnail(str(row["path"]), side),
                stages,
                _labels(run, (probabilities, chosen), truth, marks, corrected),
                **(about or {}).get(row["id"], {}),
            )
    return [cards[name] for name in ids if name in cards]


def _labels(
    run: Run,
    stages: tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]],
    truth: npt.NDArray[np.int8],
    crops: Mapping[int, Crop],
    corrected: npt.NDArray[np.int8],
) -> tuple[Label, ...]:
    """List classes that a stage names, that are true or that a human corrected; the last come first.

    `stages` are (S, C) probabilities, and whether they reach their thresholds.
    """
    p, named = stages
    shown = np.flatnonzero(named.any(axis=0) | (truth == 1) | (corrected != LEFT))
    order = shown[np.lexsort((-p[-1, shown], corrected[shown] == LEFT))]
    return tuple(
        Label(
            run.classes[c],
            int(c),
            tuple(float(x) for x in p[:, c]),
            tuple(bool(x) for x in named[:, c]),
            int(truth[c]),
            crops.get(int(c)),
            int(corrected[c]),
        )
        for c in order
    )
