"""Stage `download`: fetch and unpack a benchmark's archives, where its images are not there yet."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from cutsew.config.benchmarks import DownloadConfig
from cutsew.data.fetch import fetch, mirrored, unpack
from cutsew.errors import UserError
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.runtime.processes import directory_lock
from cutsew.stages.options import SettingsOption
from cutsew.storage.atomic import atomic_path

log = logging.getLogger(__name__)


def download(
    record_path: Annotated[Path, typer.Argument(metavar="RECORD", help="download.json, written.")],
    *,
    settings: SettingsOption,
) -> None:
    """Fetch and unpack a benchmark's archives; a copy that is there is used as it is."""
    record = Record("download", STAGES["download"].version, settings)
    chosen = DownloadConfig.model_validate(settings["dataset"]["download"])
    root = Path(settings["dataset"]["root"])
    folder = chosen.folder
    if folder is None or not root.is_relative_to(folder):
        raise UserError(f"dataset.download.folder: {folder} does not hold dataset.root {root}; set both to one place")
    digests = None
    if not root.is_dir():
        with directory_lock(
            _archives(folder), "cutsew download", "wait for it to finish, then rerun to use its images"
        ):
            digests = None if root.is_dir() else _download(chosen, folder, root)
        _remove_empty(_archives(folder))
    if digests is None:
        log.info("%s exists and is used as is", root)
    record.facts = {"downloaded": False} if digests is None else {"downloaded": True, "archives": digests}
    record.write(record_path, {})


def _archives(folder: Path) -> Path:
    """Name the folder in which archives arrive."""
    return folder.with_name(f"{folder.name}.archives")


def _download(chosen: DownloadConfig, folder: Path, root: Path) -> dict[str, str]:
    """Fetch all archives and unpack them together; return the URL of each and what it digests to."""
    if folder.exists():
        raise UserError(
            f"dataset.download.folder: {folder} is there, but {root} is not; set dataset.root to your copy, or move it "
            "away"
        )
    archives = _archives(folder)
    digests = {}
    try:
        for archive in chosen.archives:
            url = mirrored(archive.url, chosen.mirror)
            digests[url] = fetch(url, archives / archive.name, archive.digest)
            if archive.digest is None:
                log.warning("%s: no digest is set to check it with; it has %s", url, digests[url])
        with atomic_path(folder) as draft:
            draft.mkdir(parents=True)
            for archive in chosen.archives:
                unpack(archives / archive.name, draft)
            if not (draft / root.relative_to(folder)).is_dir():
                raise UserError(
                    f"dataset.root: the archives hold no {root.relative_to(folder)}; set it to what they hold"
                )
        for archive in () if chosen.keep_archives else chosen.archives:
            (archives / archive.name).unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); fix this and rerun") from None
    return digests


def _remove_empty(folder: Path) -> None:
    """Remove a folder that holds nothing."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
