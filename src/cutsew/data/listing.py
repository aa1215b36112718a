"""Which photos there are, before any is opened."""

import hashlib
import logging
import os
from pathlib import Path

import pandas as pd

from cutsew.config import Config
from cutsew.config.dataset import Dataset
from cutsew.config.teacher import ScoresTeacher, Teacher
from cutsew.data import folder, voc
from cutsew.errors import UserError

log = logging.getLogger(__name__)


def list_images(dataset: Dataset, root: Path | None = None, scores: ScoresTeacher | None = None) -> pd.DataFrame:
    """List the photos of a dataset without opening any.

    Args:
        dataset: its settings.
        root: replaces `dataset.root`; the demo's world has no other.
        scores: settings of the scores that kind `ids` takes its ids from; of other kinds, with `missing: drop`, photos
            without scores are left out. None where the teacher is of another kind.

    Returns:
        Columns id (text, unique), path (text; empty for kind `ids`) and split: train, test, or None where the photo's
        content will decide (`dataset.test.fraction`). Kinds folder and ids: in the order of the ids or of the scores;
        kinds demo and voc: the training list, then the test list.

    Raises:
        UserError: a folder, list or photo is missing, or there are no photos.

    """
    if dataset.kind == "ids":
        return _ids(scores)
    root = root or dataset.root
    if root is None:
        raise UserError(f"dataset.root: not set; kind {dataset.kind} needs --root, the folder of its photos")
    listed = _folder(dataset, root) if dataset.kind == "folder" else _voc(dataset, root)
    if scores is None or scores.file is None or scores.missing != "drop":
        return listed
    return _with_scores(listed, scores)


def listing_fingerprint(config: Config) -> str:
    """Digest names, sizes and times of the photos and the text of the lists, without opening a photo.

    The workflow keeps it in the params of the manifest's rule, so that new, removed and edited photos are noticed.
    The file of scores counts where it decides on the photos; those of kind demo do not, since a rule makes them.

    Raises:
        UserError: a folder or list is missing.

    """
    dataset = config.dataset
    digest = hashlib.sha256(dataset.kind.encode())
    root = dataset.root
    if dataset.kind == "folder" and root is not None:
        digest.update("\n".join(sorted(_line(entry.path, entry.path) for entry in folder.scan(root))).encode())
        if dataset.test.list is not None:
            digest.update("\n".join(folder.read_lines(dataset.test.list, "dataset.test.list")).encode())
    elif dataset.kind == "voc" and root is not None:
        for names in _voc_lists(dataset, root).values():
            lines = map(_line, names, voc.photo_paths(root, names))
            digest.update("\n".join(lines).encode() + b"\n\n")
    file = config.teacher.scores.file
    if file is not None and (dataset.kind == "ids" or _drops(config.teacher)):
        digest.update(_line(str(file), file / "zarr.json" if file.is_dir() else file).encode())
    return digest.hexdigest()[:16]


def truth_fingerprint(config: Config) -> str:
    """Digest names, sizes and times of the annotations of kind voc, for the params of the truth's rule alone.

    The CSV `dataset.truth` is that rule's input and not counted here.
    """
    dataset = config.dataset
    digest = hashlib.sha256()
    annotations = None if dataset.root is None else dataset.root / "Annotations"
    if dataset.kind == "voc" and dataset.truth is None and annotations is not None and annotations.is_dir():
        with os.scandir(annotations) as entries:
            digest.update("\n".join(sorted(_line(entry.name, entry.path) for entry in entries)).encode())
    return digest.hexdigest()[:16]


def _line(name: str, path: str | Path) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116  # 100,000 times: no Path objects
    except OSError:
        return f"{name}\tmissing"
    return f"{name}\t{found.st_size}\t{found.st_mtime_ns}"


def _ids(scores: ScoresTeacher | None) -> pd.DataFrame:
    if scores is None or scores.file is None:
        raise UserError("teacher.scores.file: not set; dataset.kind ids takes its ids from there")
    from cutsew.teachers.scores import read_ids  # noqa: PLC0415  # only this kind needs it

    names = [str(name) for name in read_ids(scores.file, scores)]
    if not names:
        raise UserError(f"teacher.scores.file: {scores.file} holds no ids")
    if len(set(names)) < len(names):
        twice = pd.Series(names)[pd.Series(names).duplicated()].iloc[0]
        raise UserError(f"teacher.scores.file: {scores.file} holds the id {twice} more than once; keep one")
    return _table(names, [""] * len(names), ["train"] * len(names))


def _drops(teacher: Teacher) -> bool:
    return teacher.kind == "scores" and teacher.scores.missing == "drop"


def _with_scores(listed: pd.DataFrame, scores: ScoresTeacher) -> pd.DataFrame:
    """Leave out the photos to label that have no scores; held-out ones may lack them."""
    from cutsew.teachers.scores import usable_ids  # noqa: PLC0415  # only this teacher needs it

    usable = listed["id"].isin(usable_ids(listed["id"].tolist(), scores)) | (listed["split"] == "test")
    kept = listed[usable].reset_index(drop=True)
    if kept.empty:
        raise UserError(f"teacher.scores.file: {scores.file} has no scores of any of the photos; name another file")
    if len(kept) < len(listed):
        log.warning("%d of %d photos have no scores and are dropped", len(listed) - len(kept), len(listed))
    return kept


def _folder(dataset: Dataset, root: Path) -> pd.DataFrame:
    names = folder.list_photos(root)
    if not names:
        kinds = " ".join(folder.SUFFIXES)
        raise UserError(f"dataset.root: no photos below {root} ({kinds}); set it to the folder of the photos")
    paths = [str(root / name) for name in names]
    test = dataset.test
    if test.fraction is not None:
        return _table(names, paths, [None] * len(names))
    held_out: set[str] = set()
    if test.folder is not None:
        held_out = folder.in_folder(names, test.folder)
    elif test.list is not None:
        held_out = folder.in_list(names, test.list)
    return _table(names, paths, ["test" if name in held_out else "train" for name in names])


def _voc(dataset: Dataset, root: Path) -> pd.DataFrame:
    if not root.is_dir():
        raise UserError(f"dataset.root: {root} is not a folder; set it to the folder that holds JPEGImages")
    lists = _voc_lists(dataset, root)
    names = [name for ids in lists.values() for name in ids]
    splits: list[str | None] = [split for split, ids in lists.items() for _ in ids]
    both = set(lists["train"]) & set(lists["test"])
    if both:
        raise UserError(
            f"dataset.voc.test: {len(both)} of the photos of list {dataset.voc.test} stand in list {dataset.voc.train} "
            f"too, {min(both)} among them; name lists that share none"
        )
    paths = voc.photo_paths(root, names)
    if dataset.on_bad_image == "stop":
        _refuse_missing(paths, root)
    return _table(names, paths, splits)


def _voc_lists(dataset: Dataset, root: Path) -> dict[str, list[str]]:
    lists = {"train": voc.read_list(root, dataset.voc.train, "dataset.voc.train"), "test": []}
    if dataset.voc.test is not None:
        lists["test"] = voc.read_list(root, dataset.voc.test, "dataset.voc.test")
    return lists


def _refuse_missing(paths: list[str], root: Path) -> None:
    missing = [path for path in paths if not os.path.exists(path)]  # noqa: PTH110  # 100,000 times: no Path objects
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]}{more}: no such photo, but a list of {root / 'ImageSets' / 'Main'} names it; "
            "add it, or set dataset.on_bad_image: skip"
        )


def _table(names: list[str], paths: list[str], splits: list[str] | list[str | None] | list[None]) -> pd.DataFrame:
    return pd.DataFrame({"id": names, "path": paths, "split": pd.Series(splits, dtype=object)})
