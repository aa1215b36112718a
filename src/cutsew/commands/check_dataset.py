"""Tool check: is a copy of a benchmark whole, before anything runs."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from cutsew.config import load, override
from cutsew.config.dataset import BenchmarkCopy
from cutsew.config.yaml_file import read_config
from cutsew.data import coco, layouts, nus
from cutsew.data.truth import absent_classes
from cutsew.errors import UserError, some

LAYOUT = {
    "voc": "JPEGImages/<id>.jpg, Annotations/<id>.xml, ImageSets/Main/<list>.txt",
    "coco": "annotations/instances_<list>.json, <list>/, images/<list>/ or images/ with the images",
    "nus": "ImageList/<list>.txt, ConceptsList/Concepts81.txt, Groundtruth/AllLabels/ or Groundtruth/TrainTestLabels/ "
    "with Labels_<concept>*.txt, Flickr/<tag>/<file>.jpg",
}
SHOWN = 5
"""Lost images that are named."""


def check_dataset(
    configfile: Annotated[Path, typer.Argument(help="A config file of kind voc, coco or nus.")],
    root: Annotated[Path | None, typer.Option(help="Folder of the copy, instead of dataset.root.")] = None,
) -> None:
    """Check that a benchmark copy is complete: lists, counts, classes, labels and images.

    Nothing is written. Exits with status 1 if anything is missing.
    """
    config = load(_read(configfile, root))
    dataset = config.dataset
    if not isinstance(dataset, BenchmarkCopy):
        raise UserError(
            f"{configfile}: dataset.kind is {dataset.kind}; only copies of kind voc, coco and nus are checked"
        )
    typer.echo(f"{dataset.root} should hold {LAYOUT[dataset.kind]}")
    missing_items = 0
    for split, listing in layouts.read_lists(_let_through(dataset), dataset.root).items():
        missing = [path for path in tqdm(listing.paths, desc=split, unit="image") if not os.path.exists(path)]  # noqa: PTH110
        dropped = f", {listing.dropped} without any label left out" if listing.dropped else ""
        typer.echo(f"{split}: {len(listing.names)} images{dropped}, {len(missing)} of them are not there")
        for path in missing[:SHOWN]:
            typer.echo(f"  {path}")
        missing_items += len(missing)
    _check_classes(dataset, config.classes)
    layouts.read_lists(dataset, dataset.root)
    if missing_items and dataset.on_bad_image == "stop":
        raise UserError(f"{missing_items} images are missing; add them, or set dataset.on_bad_image: skip")
    what = "copy" if dataset.benchmark is None else f"copy of {dataset.benchmark}, protocol {dataset.protocol},"
    typer.echo(f"this {what} can be used as it is")


def _check_classes(dataset: BenchmarkCopy, classes: list[str]) -> None:
    """Say which classes the annotations cannot name; those of VOC are not all opened for it."""
    root = dataset.root
    if dataset.kind == "nus":
        nus.read_labels(root)
        known = nus.read_concepts(root)
    elif dataset.kind == "coco":
        known = coco.read_instances(root, dataset.coco.train, "dataset.coco.train")[1]
    else:
        return
    whole = dataset.benchmark is not None and not dataset.allow_incomplete
    absent = absent_classes(classes, known, f"dataset.root: {root}", benchmark=whole)
    if absent:
        typer.echo(f"no truth for {len(absent)} of {len(classes)} classes: {some(absent)}")


def _let_through(dataset: BenchmarkCopy) -> BenchmarkCopy:
    """Return the settings with which a copy that is not whole is counted too."""
    return dataset.model_copy(update={"allow_incomplete": True})


def _read(path: Path, root: Path | None) -> dict[str, Any]:
    raw = read_config(path)
    if root is not None:
        raw = override(raw, {"dataset.root": str(root)})
    return dict(raw)
