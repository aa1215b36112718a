"""Photos in, labels and probabilities out: a student at work, however it is kept."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cutsew.data import accounting
from cutsew.deploy.classifier import Classifier
from cutsew.deploy.photos import Found, find, readable
from cutsew.deploy.rows import Writer, format_of, writing
from cutsew.errors import UserError, printable
from cutsew.finite import refuse_not_finite
from cutsew.numerics.score import sigmoid

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class How:
    """How new photos are looked at.

    Attributes:
        threshold: probability from which every class counts as named; None for the student's own thresholds.
        rule: whose thresholds; None for the student's usual ones.
        format: csv, json or jsonl; None to tell it from the file's suffix.
        long: of CSV, a row per photo and class.
        batch_size: photos per forward pass.
        workers: processes that decode.
        together: combines logits of photos, by their paths, with another model's; None for the student alone.

    """

    threshold: float | None = None
    rule: str | None = None
    format: str | None = None
    long: bool = False
    batch_size: int = 32
    workers: int = 0
    together: Callable[[Sequence[str], npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None


def predict(photos: Path, student: Classifier, out: Path, how: How) -> int:
    """Name the classes in a photo or in all photos of a folder; return how many were read.

    Args:
        photos: a photo or a folder.
        student: the classifier.
        out: a file, or `-` for standard output.
        how: thresholds, format, speed.

    Raises:
        UserError: there are no photos, or none can be read.

    """
    if how.threshold is not None and how.rule is not None:
        raise UserError("--threshold: takes the place of --rule; leave one of them out")
    chosen = format_of(out, how.format, student.classes, long=how.long)
    thresholds = student.thresholds.choose(how.rule)
    if how.threshold is not None:
        thresholds = np.full(len(student.classes), how.threshold)
    found = find(photos)
    with logging_redirect_tqdm(), writing(out, chosen, student.classes, long=how.long) as write:
        bad = _predict(found, student, thresholds, how, write)
        if bad == len(found.names):
            raise UserError(f"{photos}: of {bad} photos none can be read; nothing is written")
    _tell(len(found.names), bad, found)
    return len(found.names) - bad


def _predict(found: Found, student: Classifier, thresholds: npt.NDArray[np.float64], how: How, write: Writer) -> int:
    """Write a row for each photo that can be read; return how many cannot."""
    bad, photos = 0, zip(found.names, found.paths, strict=True)
    with tqdm(total=len(found.names), desc="predict", unit="photo") as bar:
        for batch in readable(found.paths, student.square, how.batch_size, how.workers):
            kept = []
            for item in batch:
                name, path = next(photos)
                if isinstance(item, str):
                    bad += 1
                    log.warning("skipped %s: %s", printable(name), item)
                else:
                    kept.append((name, path, item))
            if kept:
                logits = student.logits(torch.stack([item for _, _, item in kept])).numpy()
                if how.together is not None:
                    logits = how.together([path for _, path, _ in kept], logits)
                refuse_not_finite(logits, [name for name, _, _ in kept], "the model's answer")
                for (name, _, _), probabilities in zip(kept, sigmoid(logits.astype(np.float64)), strict=True):
                    write(name, probabilities, probabilities >= thresholds)
            bar.update(len(batch))
    return bad


def _tell(photos: int, bad: int, found: Found) -> None:
    skipped = ([f"{bad} that cannot be read"] if bad else []) + accounting.counts(
        accounting.groups([], found.leftovers)
    )
    log.info("%d photos looked at%s", photos - bad, f"; skipped: {printable(', '.join(skipped))}" if skipped else "")
