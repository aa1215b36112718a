"""Photos with what the first and the last stage name in them, and the crops that made the difference."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from cutsew.artefacts.outcome import SPLIT_STAGES, Outcome, read_truth
from cutsew.artefacts.store import array_of, labels_of, open_group, read
from cutsew.data.images import BadImage, read_image
from cutsew.numerics.score import sigmoid

SIDE = 560
"""Longest side of a photo in the page, in pixels."""

MOST_LABELS = 8
MOST_CROPS = 3
MARKS = {1: "right", 0: "wrong", -1: "unknown"}


@dataclass(frozen=True)
class Label:
    """A named class: its probability, and right, wrong or (without truth) unknown."""

    name: str
    probability: float
    mark: str


@dataclass(frozen=True)
class Crop:
    """The crop whose answer won for a class; edges in pixels of the photo."""

    name: str
    number: int
    left: float
    top: float
    right: float
    bottom: float
    flipped: bool


@dataclass(frozen=True)
class Card:
    """One photo.

    Attributes:
        id: of the photo.
        split: train or test.
        width: of the photo in pixels.
        height: of the photo in pixels.
        photo: at most SIDE pixels, None where it cannot be read.
        last: name of the last stage.
        before: what zero-shot names, most likely first.
        after: what the last stage names.
        crops: that won for classes which only the last stage names.

    """

    id: str
    split: str
    width: int
    height: int
    photo: Image.Image | None
    last: str
    before: tuple[Label, ...]
    after: tuple[Label, ...]
    crops: tuple[Crop, ...]

    @property
    def source(self) -> str:
        """The photo as a data URI, empty where there is none."""
        if self.photo is None:
            return ""
        stream = io.BytesIO()
        self.photo.save(stream, "JPEG", quality=82, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


class Gallery:
    """Chooses photos and gathers what is said about them.

    Args:
        images: the manifest.
        outcomes: the stages, zero_shot among them.
        threshold: probability from which a class counts as named.
        fused: fused.zarr, for the views that won.
        views: views.zarr, for their boxes; None shows no crop.
        labels: labels.parquet; None marks nothing right or wrong.

    """

    def __init__(
        self,
        images: pd.DataFrame,
        outcomes: Mapping[str, Outcome],
        threshold: float,
        fused: Path,
        views: Path | None = None,
        labels: Path | None = None,
    ) -> None:
        self._images = images.assign(gained=0)
        self._outcomes = outcomes
        self._threshold = threshold
        self._labels = labels
        self._winner = array_of(open_group(fused), "winner")
        self._winner_rows = pd.Index(labels_of(open_group(fused), "image"))
        self._boxes = array_of(open_group(views), "boxes") if views is not None else None
        for split in dict.fromkeys(images["split"]):
            here = self._images["split"] == split
            self._images.loc[here, "gained"] = self._gained(split, list(self._images.loc[here, "id"]))

    def most_gained(self, count: int, split: str | None = None) -> list[str]:
        """Return the photos in which the last stage names most classes that zero-shot does not.

        Truth plays no part. Equal photos come in the order of their digests, and so do not depend on names or order.
        Where the split holds too few, the other's follow.
        """
        here = self._images.assign(other=(self._images["split"] != split) if split else False)
        ordered = here.sort_values(["other", "gained", "digest"], ascending=[True, False, True], kind="stable")
        return list(ordered["id"].head(count))

    def drawn(self, count: int, apart_from: Sequence[str]) -> list[str]:
        """Draw photos by their digests: a sample that nobody chose."""
        rest = self._images[~self._images["id"].isin(apart_from)].sort_values("digest", kind="stable")
        return list(rest["id"].head(count))

    def cards(self, ids: Sequence[str]) -> list[Card]:
        """Gather what is said about some photos."""
        images = {str(row["id"]): row for _, row in self._images[self._images["id"].isin(ids)].iterrows()}
        classes = self._outcomes["zero_shot"].classes
        truth = np.full((len(ids), len(classes)), -1, dtype=np.int8)
        if self._labels is not None:
            truth = read_truth(self._labels, ids, classes)
        return [self._card(name, images[name], row) for name, row in zip(ids, truth, strict=True)]

    def _last(self, split: str) -> str:
        return [stage for stage in SPLIT_STAGES[split] if stage in self._outcomes][-1]

    def _named(self, z: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        named: npt.NDArray[np.bool_] = sigmoid(z) >= self._threshold
        return named

    def _gained(self, split: str, ids: list[str]) -> npt.NDArray[np.int64]:
        first, last = self._outcomes["zero_shot"], self._outcomes[self._last(split)]
        pairs = zip(first.slices(ids), last.slices(ids), strict=True)
        counts = [(self._named(b) & ~self._named(a)).sum(axis=1) for a, b in pairs]
        return np.concatenate(counts) if counts else np.zeros(0, dtype=np.int64)

    def _card(self, name: str, row: pd.Series, truth: npt.NDArray[np.int8]) -> Card:
        last = self._last(row["split"])
        classes = self._outcomes[last].classes
        before, after = (self._said(stage, name, truth) for stage in ("zero_shot", last))
        known = {label.name for label in before}
        new = [label.name for label in after if label.name not in known]
        return Card(
            name,
            row["split"],
            int(row["width"]),
            int(row["height"]),
            _photo(Path(str(row["path"]))),
            last,
            before,
            after,
            self._crops(name, int(row["row"]), [(c, classes.index(c)) for c in new]),
        )

    def _said(self, stage: str, name: str, truth: npt.NDArray[np.int8]) -> tuple[Label, ...]:
        outcome = self._outcomes[stage]
        probabilities = sigmoid(outcome.read([name])[0])
        order = np.argsort(-probabilities, kind="stable")
        return tuple(
            Label(outcome.classes[c], float(probabilities[c]), MARKS[int(truth[c])])
            for c in order
            if probabilities[c] >= self._threshold
        )

    def _crops(self, name: str, row: int, wanted: Sequence[tuple[str, int]]) -> tuple[Crop, ...]:
        if self._boxes is None:
            return ()
        winners = read(self._winner, self._winner_rows.get_loc(name))
        crops: list[Crop] = []
        for label, c in wanted:
            if winners[c] >= 0 and len(crops) < MOST_CROPS:
                left, top, right, bottom, flip = (float(x) for x in read(self._boxes, (int(winners[c]), row)))
                crops.append(Crop(label, int(winners[c]), left, top, right, bottom, bool(flip)))
        return tuple(crops)


def _photo(path: Path) -> Image.Image | None:
    """Read a photo, small; None where it is not there or damaged: a report is made without it."""
    try:
        photo = read_image(path)
    except BadImage:
        return None
    photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return photo
