"""Stage `manifest`: list, check and shard the images."""

import hashlib
import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from cutsew.config.base import to_location
from cutsew.config.dataset import (
    ContainersConfig,
    Dataset,
    FolderDatasetConfig,
    ImagesConfig,
    OnBadImage,
    parse_dataset,
)
from cutsew.config.networks import ScoresFileConfig
from cutsew.data import accounting, layouts
from cutsew.data.accounting import explain_all, inspect_all, stable_order
from cutsew.data.folder import Leftover
from cutsew.data.held_out import in_fraction
from cutsew.data.images import REMEDIES, BadImage
from cutsew.data.known_images import FACTS, KnownImages, marks_of
from cutsew.data.listing import list_images
from cutsew.errors import UserError, printable
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.stages.options import RootOption, SettingsOption, WorkersOption
from cutsew.storage.atomic import write_text
from cutsew.storage.csv_rows import write_csv
from cutsew.storage.file_digests import file_digest
from cutsew.storage.manifest import (
    SHARD_COLUMNS,
    find_train_test_duplicates,
    read_manifest,
    shard_digests,
    write_manifest,
)

log = logging.getLogger(__name__)


def manifest(
    images: Annotated[Path, typer.Argument(help="images.parquet; if it is there, its images keep their places.")],
    *,
    settings: SettingsOption,
    root: RootOption = None,
    workers: WorkersOption = 0,
) -> None:
    """List, check and shard the images: images.parquet, shards.csv and skipped.csv."""
    record = Record("manifest", STAGES["manifest"].version, settings)
    dataset = parse_dataset(settings["dataset"])
    scores = ScoresFileConfig.model_validate(settings.get("teacher", {}).get("scores", {}))
    place = dataset.location if root is None else to_location(root)
    previous = _known(images)
    leftovers: list[Leftover] = []
    listed = list_images(dataset, place, scores, leftovers)
    dropped = int(listed.attrs.get("dropped", 0))
    listed = listed.iloc[stable_order(listed["id"].tolist(), previous)].reset_index(drop=True)

    if dataset.kind == "ids":
        table, skipped = _of_ids(listed), list[BadImage]()
    else:
        table, skipped, record.work = _of_images(listed, place, images.with_suffix(".cache"), workers)
    if isinstance(dataset, ImagesConfig):
        _refuse_bad(skipped, dataset.on_bad_image)
    if isinstance(dataset, FolderDatasetConfig | ContainersConfig) and dataset.test.fraction is not None:
        held_out = [in_fraction(digest, dataset.test.fraction) for digest in table["digest"]]
        table["split"] = ["test" if held else "train" for held in held_out]
        if held_out and not any(held_out):
            log.warning("dataset.test.fraction: %g of %d images held none out", dataset.test.fraction, len(held_out))
    _refuse_empty(table, skipped, dataset)
    _warn_of_twins(table)
    table["shard"] = table.index // dataset.shard_size

    write_manifest(images, table)
    folder = images.parent
    leftovers = explain_all(leftovers, workers)
    write_csv(folder / "skipped.csv", pd.DataFrame(accounting.rows(skipped, leftovers), columns=["path", "reason"]))
    _write_shards(folder / "shards.csv", table)
    counts = table["split"].value_counts()
    record.inputs = _inputs(dataset, place, scores)
    record.facts = {
        "root": place,
        "train": int(counts.get("train", 0)),
        "test": int(counts.get("test", 0)),
        "skipped": len(skipped),
        "dropped": dropped,
        "twins": len(find_train_test_duplicates(table)),
        "listed": dataset.kind,
        "left": accounting.groups(skipped, leftovers),
    }
    outputs = {name: file_digest(folder / name) for name in (images.name, "shards.csv", "skipped.csv")}
    record.write(images.with_suffix(".json"), outputs)
    log.info("%s", printable(accounting.summary(record.facts)))
    for line in accounting.advice(record.facts):
        log.warning("not read: %s", printable(line))
    if dropped:
        log.info("%d images without any label left out (dataset.unannotated: drop)", dropped)
    log.info("%d of them were known and keep their places", len(set(previous) & set(table["id"])))


def _known(images: Path) -> list[str]:
    """Ids of an earlier manifest in their order; none if there is no such file."""
    return [str(name) for name in read_manifest(images, columns=("id",))["id"]] if images.exists() else []


def _of_images(
    listed: pd.DataFrame, root: Path | str | None, cache: Path, workers: int
) -> tuple[pd.DataFrame, list[BadImage], dict[str, int]]:
    """Inspect the listed images; those that are as an earlier run found them are not read.

    Args:
        listed: columns id, path and split.
        root: the folder or URL of the images.
        cache: the folder of what earlier runs found.
        workers: threads that read and decode.

    Returns:
        The good images' rows, the bad ones sorted by path, and how many were read and how many decoded.

    """
    paths = listed["path"].tolist()
    marks = marks_of(paths, root, workers)
    known = KnownImages(cache)
    found, sizes = known.look_up(paths, marks)
    waiting = np.setdiff1d(np.arange(len(paths)), found.index).tolist()
    if waiting and len(found):
        log.info("%d of %d images are as an earlier run found them and are not read", len(found), len(paths))
    seen: dict[int, tuple[int, int, int, str]] = {}
    bad: list[BadImage] = []
    inspections = inspect_all([paths[row] for row in waiting], workers, sizes)
    for row, inspected in zip(waiting, tqdm(inspections, total=len(waiting), desc="images", unit="image"), strict=True):
        if isinstance(inspected, BadImage):
            bad.append(inspected)
        else:
            seen[row] = (inspected.width, inspected.height, inspected.bytes, inspected.digest)
            known.add(paths[row], int(marks[row]), inspected)
    decoded = len(bad) + sum(digest not in sizes for *_, digest in seen.values())
    new = pd.DataFrame(list(seen.values()), columns=[*FACTS], index=list(seen))
    facts = pd.concat([part for part in (found, new) if len(part)] or [new]).sort_index()
    table = pd.concat([listed.iloc[facts.index].reset_index(drop=True), facts.reset_index(drop=True)], axis=1)
    if seen or len(found) < known.count:
        known.replace(table.assign(mark=marks[facts.index]))
    return table, sorted(bad, key=lambda error: error.path), {"read": len(waiting), "decoded": decoded}


def _of_ids(listed: pd.DataFrame) -> pd.DataFrame:
    """Rows of ids without images: no size, and the digest is the id's."""
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in listed["id"]]
    return listed.assign(width=0, height=0, bytes=0, digest=digests)


def _refuse_bad(bad: list[BadImage], on_bad_image: OnBadImage) -> None:
    if not bad:
        return
    if on_bad_image == "stop":
        more = f" (and {len(bad) - 1} more bad images)" if len(bad) > 1 else ""
        remedy = REMEDIES.get(bad[0].reason, "replace or remove it")
        raise UserError(f"{bad[0].path}: {bad[0].reason}{more}; {remedy}, or set dataset.on_bad_image: skip")
    log.warning("%d images cannot be read and are skipped; see skipped.csv", len(bad))


def _refuse_empty(table: pd.DataFrame, bad: list[BadImage], dataset: Dataset) -> None:
    if (table["split"] == "train").any():
        return
    if table.empty and bad:
        raise UserError(f"dataset.root: none of the {len(bad)} images can be read; the first is {bad[0]}")
    setting = "test" if isinstance(dataset, FolderDatasetConfig | ContainersConfig) else f"{dataset.kind}.train"
    raise UserError(f"dataset.{setting}: leaves no image to train on; hold out fewer")


def _warn_of_twins(table: pd.DataFrame) -> None:
    """Say how many held-out images are byte for byte among the training images too."""
    duplicates = find_train_test_duplicates(table)
    if duplicates:
        log.warning(
            "%d of the held-out images are byte for byte among the training images too, %s among them",
            len(duplicates),
            printable(duplicates[0]),
        )


def _write_shards(path: Path, table: pd.DataFrame) -> None:
    """Write what depends on the images: `digest` of ids and content, `listed` of splits too, `placed` of paths too.

    The file is left as it is when nothing changed, so that nothing after it reruns.
    """
    digests = shard_digests(table)
    names = table["id"] + "\t" + table["split"]
    listed = shard_digests(table.assign(id=names))
    placed = shard_digests(table.assign(id=names + "\t" + table["path"]))
    counts = table["shard"].value_counts()
    rows = [f"{n},{counts[n]},{digest},{listed[n]},{placed[n]}" for n, digest in digests.items()]
    text = "\n".join([",".join(SHARD_COLUMNS), *rows]) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _inputs(dataset: Dataset, root: Path | str | None, scores: ScoresFileConfig) -> list[Path]:
    """Return the files besides the images that determine the listing."""
    if dataset.kind == "ids":
        return [scores.file] if scores.file is not None else []
    if isinstance(dataset, FolderDatasetConfig | ContainersConfig):
        return [dataset.test.list] if dataset.test.list is not None else []
    return layouts.list_files(dataset, Path(root)) if root is not None else []
