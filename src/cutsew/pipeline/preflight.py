"""Cheap checks made before any job starts, so that a slip shows in the first second and not after hours."""

import math
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cutsew.config import Config
from cutsew.config.dataset import (
    BenchmarkCopy,
    FolderDatasetConfig,
    ParquetDatasetConfig,
    TarDatasetConfig,
)
from cutsew.config.loading import DEFAULT
from cutsew.config.networks import ScoresFileConfig
from cutsew.data import layouts
from cutsew.data.containers import find_containers
from cutsew.data.corrections_csv import match_classes, match_images, read_overrides
from cutsew.data.csv_file import ImageNames
from cutsew.data.images import HEIF_SUFFIXES, NO_HEIF, REMEDIES, kind_of, reads_heif
from cutsew.data.listing import list_images
from cutsew.data.truth_csv import check_csv
from cutsew.errors import UserError
from cutsew.pipeline.outputs import required_stages
from cutsew.pipeline.preflight_models import check_activation, check_preprocessing, check_tower, check_weights

if TYPE_CHECKING:
    import pandas as pd


OnDisk = FolderDatasetConfig | BenchmarkCopy
"""A dataset whose images are listed before the first job."""

FEW_FILES, ENOUGH_FILES = 128, 1024
"""Number of open files that a process needs; a lower limit is raised to it."""


def check_open_files() -> None:
    """Have this process and the jobs that it starts be allowed to open enough files at once.

    Raises:
        UserError: the limit is low and cannot be raised from here.

    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FEW_FILES:
        return
    raised = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if raised < FEW_FILES:
        raise UserError(f"this shell allows a process only {soft} open files; type ulimit -n 1024, or open a new shell")
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))


def validate_inputs(*configs: Config) -> None:
    """Check that what the settings of one or more runs name is there; no image is opened.

    Runs with equal datasets cost one listing of the images together, and one reading of their truth.

    Raises:
        UserError: one line with the dotted setting, what is wrong and what to do.

    """
    listings: dict[str, Listing] = {}
    checked: set[tuple[str, ...]] = set()
    for config in configs:
        check_weights(config)
        check_tower(config)
        check_preprocessing(config)
        check_activation(config)
        _check_scores(config)
        corrections = _check_overrides(config)
        scores = config.teacher.scores if config.teacher.kind == "scores" else None
        key = config.dataset.model_dump_json() + (scores.model_dump_json() if scores is not None else "")
        dataset = config.dataset
        if isinstance(dataset, TarDatasetConfig | ParquetDatasetConfig):
            _check_containers(dataset)  # their images are listed once, by the manifest
        if isinstance(dataset, OnDisk) and key not in listings and not _to_come(config):
            if isinstance(dataset.root, Path):
                _check_root(dataset.root)
            listings[key] = _training_images(dataset, scores, config.classes)
        elif config.dataset.truth is not None and (key, *config.classes) not in checked:
            of_ids = config.dataset.kind == "ids"
            names = ImageNames(list_images(config.dataset, scores=scores)["id"].tolist()) if of_ids else None
            check_csv(config.dataset.truth, config.classes, names)
        checked.add((key, *config.classes))
        if config.dataset.kind == "demo":
            train = config.dataset.demo.train
            _check_top_k(config, Count(train, train, f"the {train} of dataset.demo.train"))
        elif key in listings:
            listing = listings[key]
            _check_top_k(config, listing.train)
            if corrections is not None and listing.ids is not None and config.labels.overrides is not None:
                match_images(corrections, listing.ids, config.labels.overrides)
        _check_passes(config)


@dataclass(frozen=True)
class Count:
    """How many images there are to train on.

    Attributes:
        images: the number, or its expectation where their content will decide.
        surely: a number that there will be.
        what: how both are called in a message.

    """

    images: int
    surely: int
    what: str


@dataclass(frozen=True)
class Listing:
    """The images of a dataset, as far as they can be listed in seconds.

    Attributes:
        train: how many there are to train on.
        ids: of all images, unreadable ones too; None where only the manifest lists them.

    """

    train: Count
    ids: list[str] | None


def _training_images(dataset: OnDisk, scores: ScoresFileConfig | None, classes: list[str]) -> Listing:
    """Count the images that are not known to be held out, in seconds; a CSV of truth has to name some images.

    Labels that decide on images (`dataset.unannotated`) are left to the manifest, which reads them once.
    """
    if dataset.kind == "coco":
        if dataset.truth is not None:
            check_csv(dataset.truth, classes)
        count = layouts.count_on_disk(dataset, dataset.root)
        return Listing(Count(count, count, f"the {count} of the training images below dataset.root"), None)
    if dataset.kind == "nus" and dataset.unannotated == "drop":
        dataset = dataset.model_copy(update={"unannotated": "keep"})
    listed = list_images(dataset, scores=scores)
    ids = listed["id"].tolist()
    local = dataset.root if isinstance(dataset.root, Path) else None
    if dataset.truth is not None:
        check_csv(dataset.truth, classes, ImageNames(ids, listed["path"].tolist(), local))
    if dataset.on_bad_image == "stop":
        _check_heif(listed["path"].tolist())
    train = int((listed["split"] != "test").sum())
    if train == 0:
        raise UserError("dataset.test: leaves no image to train on; hold out fewer")
    fraction = dataset.test.fraction if dataset.kind == "folder" else None
    if fraction is None:
        return Listing(Count(train, train, f"the {train} of the training images below dataset.root"), ids)
    # Each image's digest decides on its own, so the number is binomial; four deviations below its mean are safe.
    expected = max(1, round(train * (1 - fraction)))  # of none, the manifest tells
    surely = math.floor(train * (1 - fraction) - 4 * math.sqrt(train * fraction * (1 - fraction)))
    left = Count(expected, max(1, surely), f"the about {expected} that dataset.test.fraction leaves to train on")
    return Listing(left, ids)


def _check_heif(paths: list[str]) -> None:
    """Refuse HEIC images where they cannot be read; of one that is named so, the first bytes are looked at."""
    if reads_heif():
        return
    named = [path for path in paths if path.lower().endswith(HEIF_SUFFIXES)]
    first = next((path for path in named if kind_of(Path(path)) == "HEIF"), None)
    if first is not None:
        raise UserError(
            f"{first}: {NO_HEIF}, as {len(named)} images are named; {REMEDIES[NO_HEIF]}, "
            "or set dataset.on_bad_image: skip to skip them"
        )


def _to_come(config: Config) -> bool:
    """Check whether the images are downloaded first; refuse where they were downloaded once and are gone."""
    dataset = config.dataset
    root = dataset.location
    if not dataset.downloaded or not isinstance(root, Path) or root.is_dir():
        return False
    record = Path("results", dataset.name, DEFAULT, "download.json")
    if record.exists():
        raise UserError(f"dataset.root: {root} is missing; restore it, or remove {record} to download it again")
    return True


def _check_containers(dataset: TarDatasetConfig | ParquetDatasetConfig) -> None:
    """Check that tars or Parquet files are there."""
    if isinstance(dataset.root, Path):
        _check_root(dataset.root)
    find_containers(dataset.root, dataset.files)
    if dataset.test.files is not None:
        find_containers(dataset.root, dataset.test.files, "dataset.test.files")


def _check_root(root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"dataset.root: {root} is not a folder; set it to the folder of the images")


def _check_top_k(config: Config, train: Count) -> None:
    k = config.select.top_k
    if "select" in required_stages(config) and k != "auto" and k > train.images:
        raise UserError(f"select.top_k: {k} is more than {train.what}; set it to {train.surely} or less, or to auto")


def _check_passes(config: Config) -> None:
    """Refuse more passes than a file of scores holds; the file is opened only if a number is set."""
    if config.teacher.kind != "scores" or not config.fuse.passes:
        return
    from cutsew.data.scores import Scores  # noqa: PLC0415  # only this teacher needs it

    passes = Scores(config.teacher.scores, config.classes).passes
    if config.fuse.passes > passes:
        raise UserError(
            f"fuse.passes: {config.fuse.passes} is more than the {passes} passes in {config.teacher.scores.file}; "
            f"set it to {passes} or less"
        )


def _check_scores(config: Config) -> None:
    file = config.teacher.scores.file if config.teacher.kind == "scores" else None
    if file is not None and not file.exists():
        raise UserError(f"teacher.scores.file: {file} does not exist; name an existing npz, Zarr or parquet file")


def _check_overrides(config: Config) -> "pd.DataFrame | None":
    """Read a human's corrections and match their classes; None where there are none."""
    path = config.labels.overrides
    if path is not None and path.resolve().is_relative_to(Path("results", config.dataset.name).resolve()):
        raise UserError(f"labels.overrides: {path} is written by the workflow; name a copy of it elsewhere")
    return None if path is None else match_classes(read_overrides(path, config.classes), config.classes, path)
