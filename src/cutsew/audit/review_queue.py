"""The images of a run whose labels a human should look at next, and held-out images that resemble training images.

No true label is read.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from cutsew.audit.run import Run
from cutsew.data.images import BadImage, read_image
from cutsew.errors import UserError
from cutsew.method.review import POOL, decided, disagreement, nearest, same_picture, uncertainty, unlike
from cutsew.storage.image_ids import ImageIds, image_ids
from cutsew.storage.manifest import SPLITS, batched_slices, ids_of, paths_of
from cutsew.storage.predictions import SPLIT_STAGES, StagePredictions
from cutsew.storage.result_tables import RunThresholds
from cutsew.storage.zarr_reader import array_of, open_group, read_rows

COMPARED = ("zero_shot", "fused")
"""Stages that are compared with the last one; those between rescale labels rather than look at images."""

MOST_DOUBTFUL = 3
"""Classes that are named of an image."""


@dataclass(frozen=True)
class Reviewed:
    """What the queue is chosen from.

    Attributes:
        images: the manifest: id, path and split.
        outcomes: stage -> what it made of the images.
        thresholds: of all stages.
        corrected: ids of the images that a human corrected.
        views: views.zarr, whose embeddings tell images apart; None where there is none.

    """

    images: pd.DataFrame
    outcomes: Mapping[str, StagePredictions]
    thresholds: RunThresholds
    corrected: Collection[str] = frozenset()
    views: Path | None = None

    @classmethod
    def of(cls, run: Run) -> "Reviewed":
        """Return what a finished run has."""
        corrected = set(run.corrections.images) if run.corrections is not None else set()
        return cls(run.images, run.outcomes, run.thresholds, corrected, run.path("views.zarr"))

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return next(iter(self.outcomes.values())).classes

    def ids(self, split: str) -> pd.Index:
        """Return the ids of a split's images, in the order of the manifest."""
        return ids_of(self.images, split)

    def stages(self, split: str) -> list[str]:
        """Name the stages that are compared; the last one's labels are reviewed."""
        stages = [stage for stage in SPLIT_STAGES[split] if stage in self.outcomes]
        return [*(name for name in COMPARED if name in stages[:-1]), stages[-1]]


def queue(run: Reviewed, count: int, split: str | None = None) -> pd.DataFrame:
    """Choose images whose labels a human should look at next.

    Images that a human corrected already are left out, as are those without finite labels.

    Args:
        run: a finished run.
        count: images to choose.
        split: train or test; None for both.

    Returns:
        A row per image, the first to look at first; columns rank (from 1), id, path, split, score, uncertainty,
        disagreement (all three in labels), labels (those of the last stage, a list) and doubtful (the classes that
        make up most of the score, a list).

    Raises:
        UserError: the run has no images of that split.

    """
    expected = [name for name in SPLITS if split in (None, name) and len(run.ids(name))]
    if not expected:
        raise UserError(f"--split: the run has no {split} images; leave it out")
    scored = pd.concat([_scored(run, name) for name in expected], ignore_index=True)
    pool = scored.sort_values("score", ascending=False, kind="stable").head(POOL * count).reset_index(drop=True)
    if pool.empty:
        return _describe(run, pool)
    rows = unlike(embeddings(run, pool["id"].tolist()), pool["score"].to_numpy(), count)
    return _describe(run, pool.iloc[rows].reset_index(drop=True))


def _scored(run: Reviewed, split: str) -> pd.DataFrame:
    """Score the images of a split, slice by slice."""
    ids = run.ids(split)
    ids = ids[~ids.isin(list(run.corrected))]
    stages, classes = run.stages(split), len(run.classes)
    result: list[npt.NDArray[np.float64]] = [np.zeros((0, 2))]
    with tqdm(total=len(ids), desc=f"next, {split}", unit="image") as bar:
        for blocks in zip(*(run.outcomes[stage].slices(ids) for stage in stages), strict=True):
            p = [decided(z, run.thresholds.of(stage, classes)) for stage, z in zip(stages, blocks, strict=True)]
            result.append(np.stack([uncertainty(p[-1]), disagreement(p).sum(axis=1)], axis=1))
            bar.update(len(blocks[0]))
    values = np.concatenate(result)
    table = pd.DataFrame({"id": ids, "split": split, "uncertainty": values[:, 0], "disagreement": values[:, 1]})
    table["score"] = values.sum(axis=1)
    return table.dropna(subset=["score"])


def embeddings(run: Reviewed, ids: list[str]) -> npt.NDArray[np.float32]:
    """Return (n, D) embeddings of n whole images; where none are stored, (n, C) zero-shot probabilities."""
    if run.views is not None and "global" in (group := open_group(run.views)):
        rows = ImageIds(image_ids(group)).find(ids)
        if (rows >= 0).all():
            return read_rows(array_of(group, "global"), rows).astype(np.float32)
    return decided(run.outcomes["zero_shot"].read(ids), np.full(len(run.classes), 0.5)).astype(np.float32)


def _describe(run: Reviewed, chosen: pd.DataFrame) -> pd.DataFrame:
    """Add what the chosen images' labels are, and which are doubtful."""
    labels: dict[str, list[str]] = {}
    doubtful: dict[str, list[str]] = {}
    for split, part in chosen.groupby("split"):
        ids, stages = part["id"].tolist(), run.stages(str(split))
        p = [decided(run.outcomes[stage].read(ids), run.thresholds.of(stage, len(run.classes))) for stage in stages]
        doubt = np.minimum(p[-1], 1 - p[-1]) + disagreement(p)
        most = np.argsort(-doubt, axis=1, kind="stable")[:, :MOST_DOUBTFUL]
        for name, last, classes in zip(ids, p[-1], most, strict=True):
            labels[name] = [run.classes[c] for c in np.flatnonzero(last >= 0.5)]  # noqa: PLR2004 - see `decided`
            doubtful[name] = [run.classes[c] for c in classes]
    ids = chosen["id"].tolist()
    table = chosen[["id", "split", "score", "uncertainty", "disagreement"]].copy()
    table.insert(1, "path", list(map(paths_of(run.images, ids).get, ids)))
    table["labels"], table["doubtful"] = [labels[name] for name in ids], [doubtful[name] for name in ids]
    table.insert(0, "rank", range(1, len(table) + 1))
    return table


ALIKE = 0.95
"""Cosine of two images' embeddings from which their pixels are compared."""

PAIRS = 2_000_000_000
"""Pairs of a held-out and a training image that are compared; beyond, every k-th held-out image is."""

QUERIES = 20_000
"""Held-out images that are compared at most."""

AT_ONCE = 2**24
"""Cosines in memory at once."""

OPENED = 1_000
"""Pairs whose pixels are compared, those of the highest cosine."""


class NearDuplicates(NamedTuple):
    """Held-out images that show what a training image shows.

    Attributes:
        pairs: (held-out id, training id), the most alike first.
        compared: held-out images that were compared with all training images.

    """

    pairs: list[tuple[str, str]]
    compared: int


def near_duplicates(run: Reviewed) -> NearDuplicates:
    """Find held-out images that are nearly a training image: by their embeddings, confirmed by their pixels.

    Embeddings alone do not tell: those of a class's images may be equal (`teacher.kind: conse`). Of each held-out image
    the nearest training image is compared. Resized and recompressed copies are found, strong crops are not.
    """
    held, train = run.ids("test"), run.ids("train")
    if run.views is None or held.empty or train.empty or "global" not in (group := open_group(run.views)):
        return NearDuplicates([], 0)
    array, rows = array_of(group, "global"), ImageIds(image_ids(group))
    held = held[:: max(-(-len(held) * len(train) // PAIRS), -(-len(held) // QUERIES))]
    of_train, of_held = rows.find(train), rows.find(held)
    if (of_train < 0).any() or (of_held < 0).any():
        return NearDuplicates([], 0)
    blocks = (
        read_rows(array, of_train[part]).astype(np.float32)
        for part in batched_slices(len(train), max(1, AT_ONCE // len(held)))
    )
    found, cosine = nearest(read_rows(array, of_held).astype(np.float32), blocks)
    likely = [int(i) for i in np.argsort(-cosine, kind="stable")[:OPENED] if cosine[i] >= ALIKE]
    pairs = [(held[i], train[found[i]]) for i in likely]
    place = paths_of(run.images, {name for pair in pairs for name in pair})
    return NearDuplicates([pair for pair in pairs if _look_alike(*(place[name] for name in pair))], len(held))


def _look_alike(first: str, second: str) -> bool:
    try:
        return same_picture(read_image(first), read_image(second))
    except BadImage:
        return False
