"""Labels of images that no manifest lists: found in a folder or given by path, with bad ones reported."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cutsew.config.base import to_location
from cutsew.config.dataset import ParquetDatasetConfig, TarDatasetConfig
from cutsew.data import accounting, containers, folder
from cutsew.data.images import SUFFIXES, BadImage
from cutsew.data.loader import Look, PlainImage, batches, in_order
from cutsew.errors import UserError, printable
from cutsew.inference.classifier import Classifier
from cutsew.inference.prediction_files import Writer, format_of, open_prediction_writer
from cutsew.method.crops import Square
from cutsew.method.score import sigmoid
from cutsew.method.student_views import NUM_VIEWS, resized_view, tile_views
from cutsew.method.thresholds import named
from cutsew.runtime.batching import require_finite, run_ahead
from cutsew.storage.result_tables import rule_in_words

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSet:
    """Images, and the other files next to them.

    Attributes:
        names: one per image: its path relative to the folder, or its id in a tar or Parquet file; of a single image,
            the path as given.
        paths: of the files, or addresses as of `data.image_bytes`.
        leftovers: all else that is there.

    """

    names: list[str]
    paths: list[str]
    leftovers: list[folder.Leftover] = field(default_factory=list)


def find_images(place: str | Path) -> ImageSet:
    """Find the images of a folder, at any depth and in the order of their names, or take the one that is named.

    Args:
        place: an image, a folder, a tar, a Parquet file, a pattern of these (`photos-{000..099}.tar`), or a URL of any.

    Raises:
        UserError: there is none.

    """
    try:
        path = to_location(str(place))
    except ValueError as error:
        raise UserError(f"IMAGES: {error}") from None
    if str(path).endswith((".tar", ".parquet")):
        return _packed(path)
    if isinstance(path, str):
        if path.lower().endswith(SUFFIXES):
            return ImageSet([path], [path])
        leftovers: list[folder.Leftover] = []
        far = folder.list_remote_images(path, leftovers)
        if not far:
            raise UserError(f"{path}: has no images ({' '.join(SUFFIXES)}); check the URL")
        return ImageSet(list(far), list(far.values()), leftovers)
    if path.is_file():
        return ImageSet([str(path)], [str(path)])
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; check the path")
    leftovers = []
    names = folder.list_images(path, leftovers, tolerant=True)
    if not names:
        raise UserError(f"{path}: has no images ({' '.join(SUFFIXES)}); choose a folder that has some")
    return ImageSet(names, [str(path / name) for name in names], leftovers)


def _packed(path: Path | str) -> ImageSet:
    """List the images of tars or Parquet files."""
    if isinstance(path, str):
        root, _, files = path.rpartition("/")
        place: Path | str = root
    else:
        place, files = path.parent, path.name
    kind = TarDatasetConfig if files.endswith(".tar") else ParquetDatasetConfig
    leftovers: list[folder.Leftover] = []
    members = containers.list_members(kind(root=place, files=files, on_bad_image="skip"), place, leftovers, "IMAGES")
    return ImageSet([name for name, _, _ in members], [address for _, address, _ in members], leftovers)


class ImageBatch(NamedTuple):
    """Images that were read, and what became of each.

    Attributes:
        pixels: (b, 3, S, S) uint8 of the b images that could be read, or (b, 5, 3, S, S) with their tiles.
        failures: for each image of the batch, why it could not be read, or None.

    """

    pixels: Tensor
    failures: list[str | None]


def load_batches(
    paths: Sequence[str], square: Square, batch_size: int, workers: int, look: Look = resized_view
) -> Iterator[ImageBatch]:
    """Read images in batches, in order.

    Args:
        paths: of the images.
        square: the student's.
        batch_size: images in a batch.
        workers: processes that decode; 0 to use only this one.
        look: cuts one view or several of each image.

    """
    yield from batches(_Image(paths, square, look), len(paths), in_order(len(paths), batch_size), _joined, workers)


def _joined(items: list[Tensor | str]) -> ImageBatch:
    """Put the images of a batch into one tensor, in the process that read them."""
    images = [item for item in items if isinstance(item, Tensor)]
    failures = [item if isinstance(item, str) else None for item in items]
    return ImageBatch(torch.stack(images) if images else torch.empty(0, dtype=torch.uint8), failures)


class _Image:
    """Makes one image's pixels, or the reason why it has none."""

    def __init__(self, paths: Sequence[str], square: Square, look: Look) -> None:
        self._image = PlainImage(paths, square, look)

    def __call__(self, index: int) -> Tensor | str:
        try:
            return self._image(index)
        except BadImage as error:
            return error.reason


@dataclass(frozen=True)
class PredictOptions:
    """How new images are looked at.

    Attributes:
        threshold: decision threshold for every class; None for the student's own thresholds.
        rule: whose thresholds; None for the student's default ones.
        format: csv, json or jsonl; None to infer it from the file's suffix.
        long: of CSV, a row per image and class.
        batch_size: images per forward pass.
        workers: processes that decode.
        together: combines logits of images, by their paths, with another model's; None for the student alone.
        tiles: combines logits (n, 5, C) of images and their tiles; None for whole images alone.

    """

    threshold: float | None = None
    rule: str | None = None
    format: str | None = None
    long: bool = False
    batch_size: int = 32
    workers: int = 0
    together: Callable[[Sequence[str], npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None
    tiles: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None


def predict(images: str | Path, student: Classifier, out: Path, how: PredictOptions) -> int:
    """Name the classes in an image or in all images of a folder; return how many were read.

    Args:
        images: an image, a folder, a tar, a Parquet file, a pattern, or a URL.
        student: the classifier.
        out: a file, or `-` for standard output.
        how: thresholds, format, speed.

    Raises:
        UserError: there are no images, or none can be read.

    """
    if how.threshold is not None and how.rule is not None:
        raise UserError("--threshold: takes the place of --rule; leave one of them out")
    chosen = format_of(out, how.format, student.classes, long=how.long)
    thresholds = student.thresholds.choose(how.rule)
    if how.threshold is not None:
        thresholds = np.full(len(student.classes), how.threshold)
    image_set = find_images(images)
    with logging_redirect_tqdm(), open_prediction_writer(out, chosen, student.classes, long=how.long) as write:
        bad = _predict(image_set, student, thresholds, how, write)
        if bad == len(image_set.names):
            raise UserError(f"{images}: none of the {bad} images can be read; nothing was written")
    _log_summary(len(image_set.names), bad, image_set)
    rule = student.thresholds.in_words(how.rule) if how.threshold is None else rule_in_words("fixed", how.threshold)
    log.info("labels by rule %s", rule)
    return len(image_set.names) - bad


def _predict(
    image_set: ImageSet, student: Classifier, thresholds: npt.NDArray[np.float64], how: PredictOptions, write: Writer
) -> int:
    """Write a row for each image that can be read; return how many cannot."""
    failed = 0
    look, at_a_time = resized_view, how.batch_size
    if how.tiles is not None:
        look, at_a_time = tile_views, max(1, how.batch_size // NUM_VIEWS)

    def readable() -> Iterator[tuple[list[int], Tensor]]:
        """Yield the indices and the views of the images of each batch that can be read."""
        nonlocal failed
        loaded = load_batches(image_set.paths, student.square, at_a_time, how.workers, look)
        for indices, batch in zip(in_order(len(image_set.paths), at_a_time), loaded, strict=True):
            read = []
            for index, failure in zip(indices, batch.failures, strict=True):
                if failure is None:
                    read.append(index)
                    continue
                failed += 1
                log.warning("skipped %s: %s", printable(image_set.names[index]), failure)
            bar.update(len(indices) - len(read))
            if read:
                yield read, batch.pixels.flatten(0, -4)

    with tqdm(total=len(image_set.names), desc="predict", unit="image") as bar:
        for indices, scores in run_ahead(student.predict, readable(), student.device):
            names, logits = [image_set.names[index] for index in indices], scores.numpy()
            if how.tiles is not None:
                require_finite(logits, np.repeat(names, NUM_VIEWS).tolist(), "the model's output")
                logits = how.tiles(logits.reshape(len(indices), NUM_VIEWS, -1))
            if how.together is not None:
                logits = how.together([image_set.paths[index] for index in indices], logits)
            require_finite(logits, names, "the model's output")
            labels = named(logits, thresholds)
            for name, probabilities, chosen in zip(names, sigmoid(logits.astype(np.float64)), labels, strict=True):
                write(name, probabilities, chosen)
            bar.update(len(indices))
    return failed


def _log_summary(images: int, bad: int, image_set: ImageSet) -> None:
    skipped = ([f"{bad} that cannot be read"] if bad else []) + accounting.counts(
        accounting.groups([], image_set.leftovers)
    )
    log.info("%d images classified%s", images - bad, f"; skipped: {printable(', '.join(skipped))}" if skipped else "")
