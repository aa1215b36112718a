"""The images of a run whose labels a human should look at next; no true label is read."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from cutsew.audit.run import Run, stages_of
from cutsew.errors import UserError
from cutsew.method.review import POOL, decided, disagreement, uncertainty, unlike
from cutsew.storage.manifest import SPLITS
from cutsew.storage.predictions import FINAL, REFERENCE
from cutsew.storage.result_tables import RunThresholds
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read_rows

COMPARED = ("zero_shot", "fused")
"""Stages that are compared with the last one; those between rescale labels rather than look at images."""

MOST_DOUBTFUL = 3
"""Classes that are named of an image."""


def queue(run: Run, count: int, split: str | None = None) -> pd.DataFrame:
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
    expected = [name for name in SPLITS if split in (None, name) and run.ids(name)]
    if not expected:
        raise UserError(f"--split: {run.folder.name} has no {split} images; leave it out")
    thresholds = run.thresholds
    done = set(run.corrections.images) if run.corrections is not None else set()
    parts = [_scored(run, name, thresholds, done) for name in expected]
    scored = pd.concat(parts, ignore_index=True)
    pool = scored.sort_values("score", ascending=False, kind="stable").head(POOL * count).reset_index(drop=True)
    if pool.empty:
        return _describe(run, pool, thresholds)
    rows = unlike(_features(run, pool), pool["score"].to_numpy(), count)
    return _describe(run, pool.iloc[rows].reset_index(drop=True), thresholds)


def _stages(run: Run, split: str) -> list[str]:
    stages = [name for name, _ in stages_of(run, split) if name != FINAL and not name.startswith(REFERENCE)]
    return [*(name for name in COMPARED if name in stages[:-1]), stages[-1]]


def _scored(run: Run, split: str, thresholds: RunThresholds, done: set[str]) -> pd.DataFrame:
    """Score the images of a split, slice by slice."""
    ids = [name for name in run.ids(split) if name not in done]
    stages, classes = _stages(run, split), len(run.classes)
    result: list[npt.NDArray[np.float64]] = [np.zeros((0, 2))]
    with tqdm(total=len(ids), desc=f"next, {split}", unit="image") as bar:
        for blocks in zip(*(run.outcomes[stage].slices(ids) for stage in stages), strict=True):
            p = [decided(z, thresholds.of(stage, classes)) for stage, z in zip(stages, blocks, strict=True)]
            result.append(np.stack([uncertainty(p[-1]), disagreement(p).sum(axis=1)], axis=1))
            bar.update(len(blocks[0]))
    values = np.concatenate(result)
    table = pd.DataFrame({"id": ids, "split": split, "uncertainty": values[:, 0], "disagreement": values[:, 1]})
    table["score"] = values.sum(axis=1)
    return table.dropna(subset=["score"])


def _features(run: Run, pool: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Return the embeddings of whole images; where none are stored, zero-shot probabilities."""
    ids, path = pool["id"].tolist(), run.path("views.zarr")
    if path is not None and "global" in (group := open_group(path)):
        rows = pd.Index(labels_of(group, "image")).get_indexer(pd.Index(ids))
        if (rows >= 0).all():
            return read_rows(array_of(group, "global"), rows).astype(np.float32)
    return decided(run.outcomes["zero_shot"].read(ids), np.full(len(run.classes), 0.5)).astype(np.float32)


def _describe(run: Run, chosen: pd.DataFrame, thresholds: RunThresholds) -> pd.DataFrame:
    """Add what the chosen images' labels are, and which are doubtful."""
    labels: dict[str, list[str]] = {}
    doubtful: dict[str, list[str]] = {}
    for split, part in chosen.groupby("split"):
        ids, stages = part["id"].tolist(), _stages(run, str(split))
        p = [decided(run.outcomes[stage].read(ids), thresholds.of(stage, len(run.classes))) for stage in stages]
        doubt = np.minimum(p[-1], 1 - p[-1]) + disagreement(p)
        most = np.argsort(-doubt, axis=1, kind="stable")[:, :MOST_DOUBTFUL]
        for name, last, classes in zip(ids, p[-1], most, strict=True):
            labels[name] = [run.classes[c] for c in np.flatnonzero(last >= 0.5)]  # noqa: PLR2004 - see `decided`
            doubtful[name] = [run.classes[c] for c in classes]
    ids = chosen["id"].tolist()
    table = chosen[["id", "split", "score", "uncertainty", "disagreement"]].copy()
    table.insert(1, "path", run.images.set_index("id")["path"].reindex(ids).tolist())
    table["labels"], table["doubtful"] = [labels[name] for name in ids], [doubtful[name] for name in ids]
    table.insert(0, "rank", range(1, len(table) + 1))
    return table
