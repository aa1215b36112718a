"""Which images there are, before any is opened."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cutsew.config import Config
from cutsew.config.base import is_url
from cutsew.config.dataset import (
    BenchmarkCopy,
    ContainersConfig,
    Dataset,
    FolderDatasetConfig,
    Listed,
    NusDatasetConfig,
)
from cutsew.config.networks import ScoresFileConfig, Teacher
from cutsew.data import containers, folder, images, layouts, remote
from cutsew.data.containers import Containers
from cutsew.data.held_out import held_out_ids
from cutsew.errors import UserError

log = logging.getLogger(__name__)


def list_images(
    dataset: Dataset,
    root: Path | str | None = None,
    scores: ScoresFileConfig | None = None,
    leftovers: list[folder.Leftover] | None = None,
) -> pd.DataFrame:
    """List the images of a dataset without opening any.

    Args:
        dataset: its settings.
        root: replaces `dataset.root`, a path or a URL; the demo's world has no other.
        scores: settings of the scores that kind `ids` takes its ids from; of other kinds, with `missing: drop`, images
            without scores are left out. None where the teacher is of another kind.
        leftovers: everything below a folder of images that is not listed is added to it, and images without scores.

    Returns:
        Columns id (text, unique), path (text: an address as of `image_bytes`; empty for kind `ids`) and split: train,
        test, or None where the image's content will decide (`dataset.test.fraction`). Kinds folder and ids: in the
        order of the ids or of the scores; tar and parquet: file by file, as the images lie there; others: the training
        list, then the test list, and how many images without labels were left out in `attrs["dropped"]`.

    Raises:
        UserError: a folder, list or image is missing, or there are no images.

    """
    if dataset.kind == "ids":
        return _ids(scores)
    root = root or dataset.location
    if root is None:
        raise UserError(f"dataset.root: not set; kind {dataset.kind} needs --root, the folder of its images")
    if dataset.kind == "folder":
        listed = _folder(dataset, root, leftovers)
    elif isinstance(dataset, Containers):
        listed = _containers(dataset, root, leftovers)
    else:
        listed = _of_lists(dataset, Path(root))
    if scores is not None and scores.file is not None and scores.missing == "drop":
        listed = _with_scores(listed, scores, leftovers)
    _counts[_key(dataset)] = len(listed)
    return listed


_counts: dict[str, int] = {}
"""Settings of a dataset -> how many images its last listing in this process found."""


def last_count(config: Config) -> int | None:
    """Return how many images the last listing of a dataset found; None where this process listed none."""
    return _counts.get(_key(config.dataset))


def _key(dataset: Dataset) -> str:
    """Return what two listings of the same images have in common; labels that decide on images are read later."""
    return dataset.model_dump_json(exclude={"unannotated"})


_walked: dict[tuple[Path, bool], list[str]] = {}
"""Folder, and whether unreadable ones below it are passed over -> the images that the last walk found. The check before
the first job walks the folder moments before its fingerprint is taken, which takes these and forgets them."""

_last: dict[str, list[str]] = {}
"""Settings of a dataset, as JSON -> the lines that its last fingerprint was made of."""


def last_listed(config: Config) -> dict[str, int | None] | None:
    """Return what the last `listing_fingerprint` of these settings saw, so that nothing is listed twice.

    Returns:
        Path (kinds folder and coco) or name of each image and list -> its size in bytes, None where it is missing; None
        where nothing was listed in this process.

    """
    lines = _last.get(config.dataset.model_dump_json())
    if lines is None:
        return None
    parts = (line.rsplit("\t", 2) for line in lines)
    return {part[0]: int(part[1]) if len(part) == 3 else None for part in parts if len(part) > 1}


def listing_fingerprint(config: Config) -> str:
    """Digest names, sizes and times of the images and the text of the lists, without opening an image.

    The workflow keeps it in the params of the manifest's rule, so that new, removed and edited images are noticed.
    The file of scores counts where it decides on the images; images that a rule makes or downloads do not.

    Raises:
        UserError: a folder or list is missing.

    """
    dataset = config.dataset
    digest = hashlib.sha256(dataset.kind.encode())
    root = dataset.location
    if dataset.kind == "folder" and isinstance(root, str):
        files = remote.find_files(root)
        digest.update("\n".join(remote.stat_line(url, info) for url, info in files.items()).encode())
    elif dataset.kind == "folder" and isinstance(root, Path):
        tolerant = dataset.on_bad_image == "skip"
        known = _walked.pop((root, tolerant), None)
        paths = list(folder.scan(root, tolerant=tolerant)) if known is None else known
        lines = _last[dataset.model_dump_json()] = sorted(_line(path, path) for path in paths)
        digest.update("\n".join(lines).encode())
        if images.reads_heif() and any(path.lower().endswith(images.HEIF_SUFFIXES) for path in paths):
            digest.update(b"heif")  # installing the extra makes these images readable
    elif isinstance(dataset, ContainersConfig):
        names = containers.find_containers(dataset.root, dataset.files)
        digest.update(
            "\n".join(remote.stat_line(name) if is_url(name) else _line(name, name) for name in names).encode()
        )
    elif isinstance(dataset, BenchmarkCopy) and not dataset.downloaded:
        lines = _last[dataset.model_dump_json()] = list(_listed_lines(dataset, dataset.root))
        digest.update("\n".join(lines).encode())
    if isinstance(dataset, FolderDatasetConfig | ContainersConfig) and dataset.test.list is not None:
        digest.update("\n".join(folder.read_lines(dataset.test.list, "dataset.test.list")).encode())
    file = config.teacher.scores.file if config.teacher.kind == "scores" else None
    if file is not None and (dataset.kind == "ids" or drops_images(config.teacher)):
        digest.update(_line(str(file), file / "zarr.json" if file.is_dir() else file).encode())
    return digest.hexdigest()[:16]


def truth_fingerprint(config: Config) -> str:
    """Digest names, sizes and times of the annotations in the images' layout, for the params of the truth's rule alone.

    The CSV `dataset.truth` is that rule's input and not counted here; nor are annotations that a rule downloads.
    """
    dataset = config.dataset
    digest = hashlib.sha256()
    if isinstance(dataset, BenchmarkCopy) and dataset.truth is None:
        files = [] if dataset.downloaded else layouts.label_files(dataset, dataset.root)
        digest.update("\n".join(sorted(_line(file.name, file) for file in files)).encode())
    return digest.hexdigest()[:16]


def _listed_lines(dataset: BenchmarkCopy, root: Path) -> Iterator[str]:
    """Word names, sizes and times of listed images; of COCO's, of its lists and all files in its folders of images."""
    if dataset.kind == "coco":
        yield from (_line(file.name, file) for file in layouts.list_files(dataset, root))
        yield from sorted(_line(entry.path, entry.path) for entry in layouts.images_on_disk(dataset, root))
        return
    whole = dataset.model_copy(update={"allow_incomplete": True})
    if isinstance(whole, NusDatasetConfig):
        whole = whole.model_copy(update={"unannotated": "keep"})
    for listing in layouts.read_lists(whole, root).values():
        yield from map(_line, listing.names, listing.paths)
        yield "\n"
    if dataset.kind == "nus" and dataset.unannotated == "drop":
        yield from (_line(file.name, file) for file in layouts.label_files(dataset, root))


def _line(name: str, path: str | Path) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116  # 100,000 times: no Path objects
    except OSError:
        return f"{name}\tmissing"
    return f"{name}\t{status.st_size}\t{status.st_mtime_ns}"


def _ids(scores: ScoresFileConfig | None) -> pd.DataFrame:
    if scores is None or scores.file is None:
        raise UserError("teacher.scores.file: not set; dataset.kind ids takes its ids from there")
    from cutsew.data.scores import read_ids  # noqa: PLC0415  # only this kind needs it

    names = read_ids(scores.file, scores)
    if not names:
        raise UserError(f"teacher.scores.file: {scores.file} holds no ids")
    return _table(names, [""] * len(names), ["train"] * len(names))


def drops_images(teacher: Teacher) -> bool:
    """Check whether images that lack scores are left out."""
    return teacher.kind == "scores" and teacher.scores.missing == "drop"


def _with_scores(
    listed: pd.DataFrame, scores: ScoresFileConfig, leftovers: list[folder.Leftover] | None
) -> pd.DataFrame:
    """Leave out the images to label that have no scores; held-out ones may lack them."""
    from cutsew.data.scores import usable_ids  # noqa: PLC0415  # only this teacher needs it

    usable = listed["id"].isin(usable_ids(listed["id"].tolist(), scores)) | (listed["split"] == "test")
    kept = listed[usable].reset_index(drop=True)
    if kept.empty:
        raise UserError(f"teacher.scores.file: {scores.file} has no scores of any of the images; choose another file")
    if len(kept) < len(listed):
        log.warning("%d of %d images have no scores and are dropped", len(listed) - len(kept), len(listed))
        if leftovers is not None:
            reason = "no scores (teacher.scores.missing: drop)"
            leftovers += [folder.Leftover(path, "dropped", reason) for path in listed.loc[~usable, "path"]]
    return kept


def _folder(dataset: FolderDatasetConfig, root: Path | str, leftovers: list[folder.Leftover] | None) -> pd.DataFrame:
    leftovers_found: list[folder.Leftover] = [] if leftovers is None else leftovers
    if isinstance(root, str):
        found = folder.list_remote_images(root, leftovers_found)
    else:
        names = folder.list_images(root, leftovers_found, tolerant=dataset.on_bad_image == "skip")
        found = {name: str(root / name) for name in names}
    if not found:
        raise UserError(
            f"dataset.root: no images below {root}{_instead(leftovers_found)}; set it to the folder of the images"
        )
    if isinstance(root, Path):
        _walked[root, dataset.on_bad_image == "skip"] = list(found.values())
    return _with_splits(
        dataset, list(found), list(found.values()), None if isinstance(root, str) else root, leftovers_found
    )


def _containers(dataset: Containers, root: Path | str, leftovers: list[folder.Leftover] | None) -> pd.DataFrame:
    members = containers.list_members(dataset, root, leftovers)
    names = [name for name, _, _ in members]
    listed = _with_splits(dataset, names, [address for _, address, _ in members], None, leftovers)
    if dataset.test.files is not None:
        chosen = set(containers.find_containers(root, dataset.test.files, "dataset.test.files"))
        listed["split"] = ["test" if container in chosen else "train" for _, _, container in members]
    return listed


def _with_splits(
    dataset: FolderDatasetConfig | Containers,
    names: list[str],
    paths: list[str],
    root: Path | None,
    leftovers: list[folder.Leftover] | None,
) -> pd.DataFrame:
    """Hold out the images of a folder or of a list; content decides on a fraction.

    Args:
        dataset: its settings.
        names: ids of the images.
        paths: their addresses.
        root: the folder, if it is one on this machine.
        leftovers: listed names without an image are added to it.

    """
    if dataset.test.fraction is not None:
        return _table(names, paths, [None] * len(names))
    chosen, missing = held_out_ids(dataset.test, names, root, tolerant=dataset.on_bad_image == "skip")
    if leftovers is not None:
        leftovers += missing
    return _table(names, paths, ["test" if name in chosen else "train" for name in names])


def _instead(leftovers: list[folder.Leftover]) -> str:
    """Say what is in a folder without images: counts by suffix, or that nothing is."""
    counts = Counter(left.suffix for left in leftovers if left.kind == "other").most_common(5)
    if not counts:
        return f" ({' '.join(images.SUFFIXES)})"
    return f" ({' '.join(images.SUFFIXES)}), only {', '.join(f'{count} {suffix}' for suffix, count in counts)}"


def _of_lists(dataset: Listed, root: Path) -> pd.DataFrame:
    if not root.is_dir():
        raise UserError(f"dataset.root: {root} is not a folder; set it to the folder that holds the lists and images")
    listings = layouts.read_lists(dataset, root)
    paths = [path for listing in listings.values() for path in listing.paths]
    if dataset.on_bad_image == "stop":
        _refuse_missing(paths, root)
    names = [name for listing in listings.values() for name in listing.names]
    table = _table(names, paths, [split for split, listing in listings.items() for _ in listing.names])
    table.attrs["dropped"] = sum(listing.dropped for listing in listings.values())
    return table


def _refuse_missing(paths: list[str], root: Path) -> None:
    missing = [path for path in paths if not os.path.exists(path)]  # noqa: PTH110  # 100,000 times: no Path objects
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]}{more}: no such image, but a list in {root} names it; "
            "add it, or set dataset.on_bad_image: skip"
        )


def _table(names: list[str], paths: list[str], splits: list[str] | list[str | None] | list[None]) -> pd.DataFrame:
    return pd.DataFrame({"id": names, "path": paths, "split": pd.Series(splits, dtype=object)})
