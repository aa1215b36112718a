"""Stage `truth`: read the true labels. No other stage opens annotations or the CSV of labels."""

import logging
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from tqdm import tqdm

from cutsew.config.base import to_location
from cutsew.config.dataset import Listed, parse_dataset
from cutsew.data import coco, voc
from cutsew.data.csv_file import ImageNames
from cutsew.data.truth import Truth, absent_classes, adopt, from_coco, from_nus, from_voc, to_table
from cutsew.data.truth_csv import from_csv
from cutsew.errors import UserError, printable, some
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import RootOption, SettingsOption
from cutsew.storage.atomic import atomic_path
from cutsew.storage.file_digests import file_digest
from cutsew.storage.manifest import read_manifest

log = logging.getLogger(__name__)


def truth(
    images: Annotated[Path, typer.Argument(help="images.parquet.")],
    labels: Annotated[Path, typer.Argument(help="truth.parquet, to be written.")],
    *,
    settings: SettingsOption,
    root: RootOption = None,
) -> None:
    """Read the true labels, for evaluation only: truth.parquet."""
    record = Record("truth", STAGES["truth"].version, settings, [images])
    dataset = parse_dataset(settings["dataset"])
    classes: list[str] = settings["classes"]
    place = dataset.location if root is None else to_location(root)
    image_rows = read_manifest(images, columns=("id", "path", "split"))
    if dataset.truth is not None:
        record.inputs.append(dataset.truth)
        names = ImageNames(
            image_rows["id"].tolist(), image_rows["path"].tolist(), place if isinstance(place, Path) else None
        )
        result, source = from_csv(dataset.truth, names, classes), f"dataset.truth: {dataset.truth}"
    elif isinstance(dataset, Listed) and place is not None:
        result, source = _of_layout(dataset, image_rows, Path(place), classes), _source(dataset, Path(place))
    else:
        raise UserError(
            f"dataset.truth: not set, and kind {dataset.kind} has no other source of true labels; name a CSV"
        )

    absent = absent_classes(classes, result.known, source)
    adopt(result, classes)
    table = to_table(result, image_rows["id"].tolist(), classes)
    with atomic_path(labels) as draft:
        table.to_parquet(draft, index=False)
    other_names = {name: count for name, count in sorted(result.named.items()) if count and name not in set(classes)}
    record.facts = {
        "images_with_truth": len(table),
        "rows_for_unknown_images": result.strange,
        "other_names": other_names,
        "classes_without_truth": absent,
    }
    record.write(labels.with_suffix(".json"), {labels.name: file_digest(labels)})
    _log_summary(table, image_rows, other_names)
    if absent:
        log.warning(
            "%s names %d of %d classes; no truth for %s: excluded from all metrics",
            source,
            len(classes) - len(absent),
            len(classes),
            printable(some(absent)),
        )


def _annotated(images: pd.DataFrame, root: Path) -> list[str]:
    """Name the images to read annotations of: of each split all, or none where none of it is annotated."""
    names: list[str] = []
    for split, rows in images.groupby("split", sort=False):
        ids = rows["id"].tolist()
        if any(voc.annotation_path(root, name).is_file() for name in ids):
            names += ids
        else:
            log.warning("no image of the %s list has an annotation; they have no ground truth", split)
    if not names:
        raise UserError(
            f"dataset.root: no image has an annotation in {root / 'Annotations'}; add them or go without truth"
        )
    return names


def _source(dataset: Listed, root: Path) -> str:
    """Name the setting and the file, or the folder of files, that the annotations come from."""
    if dataset.kind == "coco":
        return f"dataset.root: {coco.instances_path(root, dataset.coco.train)}"
    return f"dataset.root: {root if dataset.kind == 'nus' else voc.annotation_path(root, '*').parent}"


def _of_layout(dataset: Listed, images: pd.DataFrame, root: Path, classes: list[str]) -> Truth:
    """Read the annotations that come with the images."""
    if dataset.kind == "coco":
        paths = {split: dict(zip(rows["id"], rows["path"], strict=True)) for split, rows in images.groupby("split")}
        lists = dict(zip(("train", "test"), dataset.lists(), strict=True))
        return from_coco(root, {name: paths[split] for split, name in lists.items() if name and split in paths})
    if dataset.kind == "nus":
        return from_nus(root, images["id"].tolist())
    difficult = "negative" if dataset.kind == "demo" else dataset.difficult
    labels = from_voc(root, tqdm(_annotated(images, root), desc="annotations", unit="image"), difficult)
    if dataset.kind == "demo":
        labels.known.update(classes)  # whose scenes are drawn of these; a small world may lack one by chance
    return labels


def _log_summary(table: pd.DataFrame, images: pd.DataFrame, other_names: dict[str, int]) -> None:
    log.info("true labels for %d of %d images", len(table), len(images))
    if len(table) < len(images):
        missing = images.loc[~images["id"].isin(table["id"]), "id"]
        log.warning(
            "%d of %d images have no truth, %s for one: excluded from all metrics",
            len(missing),
            len(images),
            printable(missing.iloc[0]),
        )
    if other_names:
        log.warning(
            "%d labels of %d names outside `classes` ignored: %s",
            sum(other_names.values()),
            len(other_names),
            printable(some(list(other_names))),
        )
