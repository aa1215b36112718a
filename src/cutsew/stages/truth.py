"""Stage `truth`: read the true labels. No other stage opens annotations or the CSV of labels."""

import logging
from pathlib import Path, PurePosixPath
from typing import Annotated

import pandas as pd
import typer
from tqdm import tqdm

from cutsew.artefacts.atomic import replacing
from cutsew.artefacts.manifest import read_manifest
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import file_digest
from cutsew.config.dataset import Dataset
from cutsew.data import voc
from cutsew.data.truth import Truth, from_coco, from_csv, from_nus, from_voc, refuse_absent, to_table
from cutsew.errors import UserError
from cutsew.pipeline import STAGES
from cutsew.stages.options import SettingsOption

log = logging.getLogger(__name__)


def truth(
    images: Annotated[Path, typer.Argument(help="images.parquet.")],
    labels: Annotated[Path, typer.Argument(help="labels.parquet, to be written.")],
    *,
    settings: SettingsOption,
    root: Annotated[Path | None, typer.Option(help="Folder of the photos, instead of dataset.root.")] = None,
) -> None:
    """Read the true labels, for evaluation only: labels.parquet."""
    record = Record("truth", STAGES["truth"].version, settings, [images])
    dataset = Dataset.model_validate(settings["dataset"])
    classes: list[str] = settings["classes"]
    if "id" in classes:
        raise UserError("classes: id is the name of a column of labels.parquet; use another wording for this class")
    root = root or dataset.root
    photos = read_manifest(images)
    if dataset.truth is not None:
        record.inputs.append(dataset.truth)
        found = from_csv(dataset.truth, _ids_of(photos, root))
        refuse_absent(classes, found.named, dataset.truth)
    elif dataset.annotated and root is not None:
        found = _of_layout(dataset, photos, root)
        _refuse_absent(classes, found, root, dataset)
    else:
        raise UserError("dataset.truth: not set, and kind folder or ids has no other truth; name a CSV of labels")

    table = to_table(found, photos["id"].tolist(), classes)
    with replacing(labels) as draft:
        table.to_parquet(draft, index=False)
    others = {name: count for name, count in sorted(found.named.items()) if name not in set(classes)}
    record.facts = {"photos_with_truth": len(table), "rows_for_unknown_photos": found.strange, "other_names": others}
    record.write(labels.with_suffix(".json"), {labels.name: file_digest(labels)})
    _tell(len(table), len(photos), found.strange, others)


def _ids_of(photos: pd.DataFrame, root: Path | None) -> dict[str, dict[str, str]]:
    """Map what may stand in a CSV's column to ids: the path as in the manifest, or below the root."""
    ids = photos["id"].tolist()
    paths: dict[str, str] = {}
    for name, path in zip(ids, photos["path"], strict=True):
        pure = PurePosixPath(path)
        paths[str(pure)] = name
        if root is not None and pure.is_relative_to(root):
            paths[str(pure.relative_to(root))] = name
    return {"id": {name: name for name in ids}, "path": paths}


def _annotated(photos: pd.DataFrame, root: Path) -> list[str]:
    """Name the photos to read annotations of: of each split all, or none where none of it is annotated."""
    names: list[str] = []
    for split, rows in photos.groupby("split", sort=False):
        ids = rows["id"].tolist()
        if any(voc.annotation_path(root, name).is_file() for name in ids):
            names += ids
        else:
            log.warning("no photo of the %s list has an annotation; it is left without truth", split)
    if not names:
        raise UserError(
            f"dataset.root: no photo has an annotation in {root / 'Annotations'}; add them or go without truth"
        )
    return names


def _of_layout(dataset: Dataset, photos: pd.DataFrame, root: Path) -> Truth:
    """Read the annotations that come with the photos."""
    if dataset.kind == "coco":
        ids = {split: rows["id"].tolist() for split, rows in photos.groupby("split")}
        lists = dict(zip(("train", "test"), dataset.lists(), strict=True))
        return from_coco(root, {name: ids[split] for split, name in lists.items() if name is not None and split in ids})
    if dataset.kind == "nus":
        return from_nus(root, photos["id"].tolist())
    return from_voc(root, tqdm(_annotated(photos, root), desc="annotations", unit="photo"), dataset.difficult)


def _refuse_absent(classes: list[str], found: Truth, root: Path, dataset: Dataset) -> None:
    """Refuse classes that the annotations cannot name; a small demo may lack one by chance."""
    if dataset.kind in ("coco", "nus"):
        refuse_absent(classes, found.known, root)
        return
    named = set(found.named) | voc.class_names_of_lists(root)
    if dataset.kind == "demo" and not set(classes) <= named:
        log.warning("this small world shows no %s", ", ".join(sorted(set(classes) - named)))
        return
    refuse_absent(classes, named, root / "Annotations")


def _tell(held: int, photos: int, strange: int, others: dict[str, int]) -> None:
    log.info("true labels for %d of %d photos", held, photos)
    if strange:
        log.warning("%d rows of the truth name photos that are not in the manifest; ignored", strange)
    if others:
        shown = ", ".join(list(others)[:5]) + (", ..." if len(others) > 5 else "")
        log.warning("%d labels of %d names outside `classes` ignored: %s", sum(others.values()), len(others), shown)
