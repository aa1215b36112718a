"""Reading records back: which artifact was made by what, from what."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutsew.pipeline.outputs import FINALIZED_BY
from cutsew.storage.zarr_layout import folder_of

RECORDS = ".records"
"""End of the name of the folder next to a Zarr, such as views.zarr, that holds the records of its shards' jobs."""


@dataclass(frozen=True)
class StoredRecord:
    """One record, its paths resolved.

    Attributes:
        file: the record's own, `<artifact>.json`.
        content: all that it holds.
        inputs: file or Zarr folder -> digest that it had.
        outputs: file, Zarr folder, chunk file or folder of images -> digest that it had.

    """

    file: Path
    content: dict[str, Any]
    inputs: dict[Path, str]
    outputs: dict[Path, str]

    @property
    def stage(self) -> str:
        """Name of the stage that wrote it."""
        return str(self.content["stage"])

    @property
    def artifact(self) -> Path:
        """The artifact that the record is named after: the first of what was written."""
        return next(iter(self.outputs), self.file)


class BadRecord(Exception):  # noqa: N818
    """A record that cannot be read."""


@dataclass
class ProvenanceIndex:
    """Records, read lazily folder by folder."""

    bad: dict[Path, str] = field(default_factory=dict)
    _folders: dict[Path, list[StoredRecord]] = field(default_factory=dict)
    _makers: dict[Path, StoredRecord] = field(default_factory=dict)

    def of_folder(self, folder: Path) -> list[StoredRecord]:
        """Return the records of a run's folder; those that cannot be read are kept in `bad`."""
        folder = plain(folder)
        if folder not in self._folders:
            self._folders[folder] = records = list(self._read(_record_files(folder)))
            for record in records:
                for path in record.outputs:
                    known = self._makers.get(path)
                    # Both the shard's job and the seal name a chunk file; the job is what made it.
                    if known is None or record.stage in FINALIZED_BY:
                        self._makers[path] = record
        return self._folders[folder]

    def producer_of(self, artifact: Path) -> StoredRecord | None:
        """Return the record of what made a file, a Zarr group or a file within either; None where there is none."""
        path = folder_of(plain(artifact))
        for folder in path.parents:
            self.of_folder(folder)
            if path in self._makers:
                return self._makers[path]
            if folder.name == "results":
                break
        for parent in path.parents:
            if parent in self._makers:
                return self._makers[parent]
        return None

    def jobs_of(self, seal: StoredRecord) -> list[StoredRecord]:
        """Return the records of the jobs whose chunk files a seal names."""
        makers = (self._makers[path] for path in seal.outputs)
        return list({maker.file: maker for maker in makers if maker.stage in FINALIZED_BY}.values())

    def _read(self, files: Iterable[Path]) -> Iterator[StoredRecord]:
        for file in files:
            try:
                record = read_record(file)
            except BadRecord as error:
                self.bad[file] = str(error)
                continue
            if record is not None:
                yield record


def plain(path: Path) -> Path:
    """Return the path without `..`, absolute; links are not followed, so that what is printed is what was given."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def read_record(file: Path) -> StoredRecord | None:
    """Read a record; None for JSON that is none.

    Raises:
        BadRecord: not JSON, or not whole.

    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadRecord("not readable as a record") from None
    if not isinstance(content, dict) or "stage" not in content:
        return None
    inputs, outputs = content.get("inputs"), content.get("outputs")
    if not isinstance(inputs, dict) or not isinstance(outputs, dict):
        raise BadRecord("a record without inputs or outputs")
    base = file.parent.with_suffix(".zarr") if file.parent.suffix == RECORDS else file.parent
    return StoredRecord(
        file,
        content,
        {folder_of(plain(file.parent / name)): str(digest) for name, digest in inputs.items()},
        {plain(base / name): str(digest) for name, digest in outputs.items()},
    )


def _record_files(folder: Path) -> list[Path]:
    return [
        path for pattern in ("", f"*{RECORDS}/", "references/*/") for path in sorted(folder.glob(f"{pattern}*.json"))
    ]


def shown(path: Path) -> str:
    """Return a path below the working folder as relative to it, another as it is."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
