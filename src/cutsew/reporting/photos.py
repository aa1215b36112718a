"""The report's photos: all images of a run, or a sample of many, as plain data and small thumbnails."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, features

from cutsew.method.correct import LEFT
from cutsew.method.review import chain, decided
from cutsew.method.score import sigmoid
from cutsew.method.thresholds import named
from cutsew.reporting.cards import Crops, thumbnail
from cutsew.reporting.charts import FEW_POSITIVES
from cutsew.reporting.run_data import Run
from cutsew.reporting.selection import digest_order
from cutsew.storage.manifest import batched_slices

MOST_PHOTOS = 5_000
"""Images that are shown; of more, the queue, those that a human corrected, and a sample."""

PAGE = 48
"""Photos of a page of the gallery."""

AT_ONCE = 256
"""Images whose logits are in memory at once."""

LISTED = 0.05
"""Probability from which a class is listed with an image, whether or not it is a label."""

MOST_LISTED = 10
"""Classes that are listed with an image."""

SIDES = ((500, 240), (1_500, 176), (3_000, 128), (MOST_PHOTOS, 90))
"""(images, longest side of a thumbnail in pixels): the more images, the smaller, so that the page stays below 15 MB."""

QUALITY = 50


class Photo(NamedTuple):
    """An image of the report.

    Attributes:
        id: of the image.
        split: train or test.
        width: in pixels.
        height: in pixels.
        labels: per listed class its index, the last stage's probability in percent, 1 where it is a label of that
            stage, the truth (1, 0, -1 for not known), the winning crop's box (left, top, width, height in pixels),
            empty where the whole image won, and the probability shifted so that the decision threshold is at 50; the
            most probable first.
        thumbnail: a small image as a data URI, empty where the file cannot be read.

    """

    id: str
    split: str
    width: int
    height: int
    labels: list[tuple[int, int, int, int, list[int], int]]
    thumbnail: str


@dataclass(frozen=True)
class Photos:
    """All photos of the report.

    Attributes:
        shown: in the order of the manifest.
        total: images of the run.
        queue: ids of the images to look at next, the first one first.
        similar: of the shown photos, in an order that puts similar ones next to each other: place of each; empty where
            that is not known.
        few: classes with fewer than FEW_POSITIVES held-out images by truth, class index -> images; empty without truth.

    """

    shown: list[Photo] = field(default_factory=list)
    total: int = 0
    queue: Sequence[str] = ()
    similar: Sequence[int] = ()
    few: Mapping[int, int] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Return what the page's script needs, as plain JSON values; thumbnails stand elsewhere in the page."""
        ranks = {name: rank for rank, name in enumerate(self.queue, start=1)}
        return {
            "page": PAGE,
            "list": [
                [p.id, int(p.split == "test"), p.width, p.height, ranks.get(p.id, 0), p.labels] for p in self.shown
            ],
            "similar": list(self.similar),
            "few": {str(c): count for c, count in self.few.items()},
        }


WEBP = bool(features.check("webp"))
MIME = "image/webp" if WEBP else "image/jpeg"


def gather_photos(
    run: Run,
    crops: Crops,
    queue: Sequence[str],
    embed: Callable[[list[str]], npt.NDArray[np.float32]] | None = None,
) -> Photos:
    """Gather the photos, slice by slice.

    Args:
        run: the run.
        crops: that won.
        queue: ids of the images to look at next.
        embed: gives (n, D) embeddings of n images.

    """
    images = run.images
    if not images["split"].isin(list(run.stages)).all():
        images = images[images["split"].isin(list(run.stages))]
    shown = images[sample(images, {*queue, *(run.corrections.images if run.corrections else ())})]
    side = next((side for most, side in SIDES if len(shown) <= most), SIDES[-1][1])
    photos = [photo for split, part in shown.groupby("split", sort=False) for photo in _photos(run, crops, part, side)]
    similar = np.argsort(chain(embed([photo.id for photo in photos]))).tolist() if embed is not None else []
    return Photos(photos, len(images), list(queue), similar, _few(run))


def sample(images: pd.DataFrame, kept: set[str]) -> npt.NDArray[np.bool_]:
    """Choose MOST_PHOTOS images: those that are to be kept, then those of the lowest digests."""
    if len(images) <= MOST_PHOTOS:
        return np.ones(len(images), dtype=bool)
    order = np.lexsort((digest_order(images["digest"]), ~images["id"].isin(list(kept)).to_numpy()))
    chosen = np.zeros(len(images), dtype=bool)
    chosen[order[:MOST_PHOTOS]] = True
    return chosen


def _photos(run: Run, crops: Crops, part: pd.DataFrame, side: int) -> Iterator[Photo]:
    split = str(part["split"].iloc[0])
    first, last = run.stages[split][0], run.stages[split][-1]
    thresholds = run.thresholds_of(last, split)
    for rows in batched_slices(len(part), AT_ONCE):
        some = part.iloc[rows]
        ids = some["id"].tolist()
        z = run.read(last, ids)
        labeled = named(z, thresholds)
        won = crops.read(ids, sigmoid(run.read(first, ids))) if first == "zero_shot" else [{} for _ in ids]
        shifted = decided(z, thresholds)
        everything = zip(
            some.to_dict("records"), sigmoid(z), shifted, labeled, run.truth(ids), run.said(ids), won, strict=True
        )
        for row, probabilities, likely, chosen, truth, stated, crop in everything:
            listed = np.flatnonzero(chosen | (probabilities >= LISTED) | (truth == 1) | (stated != LEFT))
            order = np.lexsort((-probabilities[listed], ~chosen[listed], stated[listed] == LEFT))
            labels = [
                (
                    int(c),
                    _percent(probabilities[c]),
                    int(chosen[c]),
                    int(truth[c]),
                    [round(x) for x in box] if c in crop and (box := crop[c].box) is not None else [],
                    _percent(likely[c]),
                )
                for c in listed[order][:MOST_LISTED]
            ]
            small = thumbnail(str(row["path"]), side) if row["path"] else None
            yield Photo(row["id"], split, int(row["width"]), int(row["height"]), labels, _encoded(small))


def _percent(p: np.floating[Any]) -> int:
    return round(100 * float(p)) if np.isfinite(p) else 0


def _encoded(image: Image.Image | None) -> str:
    if image is None:
        return ""
    stream = io.BytesIO()
    options: dict[str, Any] = {"method": 3} if WEBP else {"optimize": True}
    image.save(stream, MIME.rpartition("/")[2].upper(), quality=QUALITY, **options)
    return f"data:{MIME};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _few(run: Run) -> dict[int, int]:
    """Count the held-out images of each class that few have; empty without truth."""
    if "test" not in run.stages:
        return {}
    truth = run.truth(run.ids_of("test"))
    counts = (truth == 1).sum(axis=0)
    return {int(c): int(counts[c]) for c in np.flatnonzero(counts < FEW_POSITIVES)} if (truth >= 0).any() else {}
