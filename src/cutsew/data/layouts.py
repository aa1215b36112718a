"""The layouts that benchmarks come in, read in one way: images by list, and which files say so."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from cutsew.config.dataset import (
    CocoDatasetConfig,
    DemoDatasetConfig,
    LayoutConfig,
    Listed,
    NusDatasetConfig,
    VocDatasetConfig,
)
from cutsew.data import coco, nus, voc
from cutsew.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The images of one list.

    Attributes:
        names: ids, in the order of the list.
        paths: where they lie, in the same order.
        dropped: images left out because they have no label (`dataset.unannotated: drop`).

    """

    names: list[str]
    paths: list[str]
    dropped: int = 0


def read_lists(dataset: Listed, root: Path) -> dict[str, Listing]:
    """Read the lists of images of kind voc (the demo's world too), coco or nus.

    Returns:
        Split (train, test) -> its images; test is empty where no list of it is named.

    Raises:
        UserError: a list or folder is missing or damaged, lists share images, or a benchmark's copy is not whole.

    """
    train, test = dataset.lists()
    listings = {"train": _read(dataset, root, train, "train"), "test": Listing([], [])}
    if test is not None:
        listings["test"] = _read(dataset, root, test, "test")
    both = set(listings["train"].names) & set(listings["test"].names)
    if both and dataset.kind == "coco":
        # Each list has its own folder, so these are two images with the same name.
        for split, name in (("train", train), ("test", test)):
            named = listings[split]
            names = [
                f"{name}/{PurePath(p).name}" if i in both else i for i, p in zip(named.names, named.paths, strict=True)
            ]
            listings[split] = replace(named, names=names)
        log.info(
            "%d images have the same name in both lists (%s); their ids get the list as a prefix", len(both), min(both)
        )
    elif both:
        raise UserError(
            f"dataset.{_section(dataset)}.test: lists {train} and {test} overlap "
            f"(images in both: {len(both)}, such as {min(both)}); name lists that do not"
        )
    if isinstance(dataset, LayoutConfig):
        refuse_incomplete(dataset, {split: len(listing.names) for split, listing in listings.items()})
    return listings


def refuse_incomplete(dataset: LayoutConfig, counts: dict[str, int]) -> None:
    """Refuse a benchmark's copy whose lists hold more or fewer images than published.

    Raises:
        UserError: they do; `dataset.allow_incomplete` lets them through.

    """
    known = dataset.known()
    unannotated = dataset.unannotated if isinstance(dataset, CocoDatasetConfig | NusDatasetConfig) else "keep"
    totals = None if known is None else known.totals.get(unannotated)
    if totals is None or dataset.allow_incomplete or totals == (counts["train"], counts["test"]):
        return
    raise UserError(
        f"dataset.root: this copy of {dataset.benchmark} lists {counts['train']} images to label and {counts['test']} "
        f"held-out ones, but protocol {dataset.protocol} has {totals[0]} and {totals[1]}; get what is missing, or "
        "set dataset.allow_incomplete: true, and its numbers are not the benchmark's"
    )


def list_files(dataset: Listed, root: Path) -> list[Path]:
    """Name the files that decide which images there are, for kinds voc, coco and nus."""
    names = [name for name in dataset.lists() if name is not None]
    if dataset.kind in ("voc", "demo"):
        return [voc.list_path(root, name) for name in names]
    if dataset.kind == "coco":
        return [coco.instances_path(root, name) for name in names]
    return [nus.list_path(root, name) for name in names]


def label_files(dataset: Listed, root: Path) -> list[Path]:
    """Name the files that hold true labels in the images' layout; those of VOC, one per image, in no order."""
    if dataset.kind == "voc":
        folder = root / "Annotations"
        return [Path(entry.path) for entry in os.scandir(folder)] if folder.is_dir() else []
    if dataset.kind == "coco":
        return list_files(dataset, root)
    return nus.label_files(root) if dataset.kind == "nus" else []


def count_on_disk(dataset: CocoDatasetConfig, root: Path) -> int:
    """Count the files in COCO's folder of training images.

    Raises:
        UserError: a folder of images or a list is missing.

    """
    for split, name, path in zip(("train", "test"), dataset.lists(), list_files(dataset, root), strict=False):
        if not path.is_file():
            raise UserError(f"dataset.coco.{split}: {path} does not exist; unpack the annotations there")
        coco.image_folder(root, str(name))
    return sum(1 for _ in _walk(coco.image_folder(root, dataset.coco.train)))


def images_on_disk(dataset: CocoDatasetConfig, root: Path) -> Iterator[os.DirEntry[str]]:
    """Walk the files of COCO's folders of images, which its lists need half a minute to name."""
    for folder in {coco.image_folder(root, name): None for name in dataset.lists() if name is not None}:
        yield from _walk(folder)


def _walk(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        else:
            yield entry


def _section(dataset: Listed) -> str:
    """Name the section of the settings that names the lists."""
    return "voc" if dataset.kind == "demo" else dataset.kind


def _read(dataset: Listed, root: Path, name: str, split: str) -> Listing:
    setting = f"dataset.{_section(dataset)}.{split}"
    if isinstance(dataset, DemoDatasetConfig | VocDatasetConfig):
        names = voc.read_list(root, name, setting)
        return Listing(names, voc.image_paths(root, names))
    if dataset.kind == "coco":
        names, paths, dropped = coco.list_images(root, name, setting, drop=dataset.unannotated == "drop")
        return _refuse_none_left(Listing(names, paths, dropped), name, coco.instances_path(root, name))
    names = nus.read_list(root, name, setting)
    kept = names
    if dataset.unannotated == "drop":
        kept = [names[i] for i in np.flatnonzero(nus.read_labels(root).any(names))]
    listing = Listing(kept, nus.image_paths(root, kept) if kept else [], len(names) - len(kept))
    return _refuse_none_left(listing, name, nus.list_path(root, name))


def _refuse_none_left(listing: Listing, name: str, path: Path) -> Listing:
    """Refuse a list of which `dataset.unannotated: drop` leaves nothing."""
    if listing.names:
        return listing
    raise UserError(
        f"dataset.unannotated: drop leaves none of the {listing.dropped} images of list {name} ({path}), since nothing "
        "is annotated in any of them; set it to keep, or name another list"
    )
