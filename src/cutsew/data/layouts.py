"""The layouts that benchmarks come in, read in one way: photos by list, and which files say so."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from cutsew.config.dataset import Dataset
from cutsew.data import coco, nus, voc
from cutsew.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The photos of one list.

    Attributes:
        names: ids, in the order of the list.
        paths: where they lie, in the same order.
        dropped: photos left out because they have no label (`dataset.unlabelled: drop`).

    """

    names: list[str]
    paths: list[str]
    dropped: int = 0


def read_lists(dataset: Dataset, root: Path) -> dict[str, Listing]:
    """Read the lists of photos of kind voc (the demo's world too), coco or nus.

    Returns:
        Split (train, test) -> its photos; test is empty where no list of it is named.

    Raises:
        UserError: a list or folder is missing or damaged, lists share photos, or a benchmark's copy is not whole.

    """
    train, test = dataset.lists()
    found = {"train": _read(dataset, root, train, "train"), "test": Listing([], [])}
    if test is not None:
        found["test"] = _read(dataset, root, test, "test")
    both = set(found["train"].names) & set(found["test"].names)
    if both and dataset.kind == "coco":
        # Each list has its own folder, so these are two photos with the same name.
        for split, name in (("train", train), ("test", test)):
            named = found[split]
            names = [
                f"{name}/{PurePath(p).name}" if i in both else i for i, p in zip(named.names, named.paths, strict=True)
            ]
            found[split] = replace(named, names=names)
        log.info(
            "%d images have the same name in both lists (%s); their ids get the list as a prefix", len(both), min(both)
        )
    elif both:
        raise UserError(
            f"dataset.{_section(dataset)}.test: {len(both)} of the photos of list {test} stand in list {train} "
            f"too, {min(both)} among them; name lists that share none"
        )
    refuse_incomplete(dataset, {split: len(listing.names) for split, listing in found.items()})
    return found


def refuse_incomplete(dataset: Dataset, counts: dict[str, int]) -> None:
    """Refuse a benchmark's copy whose lists hold more or fewer photos than published.

    Raises:
        UserError: they do; `dataset.reduced` lets them through.

    """
    known = dataset.known()
    totals = None if known is None else known.totals.get(dataset.unlabelled)
    if totals is None or dataset.reduced or totals == (counts["train"], counts["test"]):
        return
    raise UserError(
        f"dataset.root: this copy of {dataset.benchmark} lists {counts['train']} photos to label and {counts['test']} "
        f"held-out ones, where protocol {dataset.protocol} has {totals[0]} and {totals[1]}; get what is missing, or "
        "set dataset.reduced: true, and its numbers are not the benchmark's"
    )


def list_files(dataset: Dataset, root: Path) -> list[Path]:
    """Name the files that decide which photos there are, for kinds voc, coco and nus."""
    names = [name for name in dataset.lists() if name is not None]
    if dataset.kind in ("voc", "demo"):
        return [voc.list_path(root, name) for name in names]
    if dataset.kind == "coco":
        return [coco.instances_path(root, name) for name in names]
    return [nus.list_path(root, name) for name in names]


def label_files(dataset: Dataset, root: Path) -> list[Path]:
    """Name the files that hold true labels in the photos' layout; those of VOC, one per photo, in no order."""
    if dataset.kind == "voc":
        folder = root / "Annotations"
        return [Path(entry.path) for entry in os.scandir(folder)] if folder.is_dir() else []
    if dataset.kind == "coco":
        return list_files(dataset, root)
    return nus.label_files(root) if dataset.kind == "nus" else []


def count_on_disk(dataset: Dataset, root: Path) -> int:
    """Count the files in COCO's folder of training photos.

    Raises:
        UserError: a folder of photos or a list is missing.

    """
    for split, name, path in zip(("train", "test"), dataset.lists(), list_files(dataset, root), strict=False):
        if not path.is_file():
            raise UserError(f"dataset.coco.{split}: {path} does not exist; unpack the annotations there")
        coco.photo_folder(root, str(name))
    return sum(1 for _ in _walk(coco.photo_folder(root, dataset.coco.train)))


def photos_on_disk(dataset: Dataset, root: Path) -> Iterator[os.DirEntry[str]]:
    """Walk the files of COCO's folders of photos, which its lists need half a minute to name."""
    for folder in {coco.photo_folder(root, name): None for name in dataset.lists() if name is not None}:
        yield from _walk(folder)


def _walk(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        else:
            yield entry


def _section(dataset: Dataset) -> str:
    """Name the section of the settings that names the lists."""
    return "voc" if dataset.kind == "demo" else dataset.kind


def _read(dataset: Dataset, root: Path, name: str, split: str) -> Listing:
    setting = f"dataset.{_section(dataset)}.{split}"
    drop = dataset.unlabelled == "drop"
    if dataset.kind in ("voc", "demo"):
        names = voc.read_list(root, name, setting)
        return Listing(names, voc.photo_paths(root, names))
    if dataset.kind == "coco":
        names, paths, dropped = coco.list_photos(root, name, setting, drop=drop)
        return _refuse_none_left(Listing(names, paths, dropped), name, coco.instances_path(root, name))
    names = nus.read_list(root, name, setting)
    kept = names
    if drop:
        kept = [names[i] for i in np.flatnonzero(nus.read_labels(root).any(names))]
    listing = Listing(kept, nus.photo_paths(root, kept) if kept else [], len(names) - len(kept))
    return _refuse_none_left(listing, name, nus.list_path(root, name))


def _refuse_none_left(listing: Listing, name: str, path: Path) -> Listing:
    """Refuse a list of which `dataset.unlabelled: drop` leaves nothing."""
    if listing.names:
        return listing
    raise UserError(
        f"dataset.unlabelled: drop leaves none of the {listing.dropped} photos of list {name} ({path}), since nothing "
        "is annotated in any of them; set it to keep, or name another list"
    )
