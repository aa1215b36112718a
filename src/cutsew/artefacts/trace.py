"""Reading records back: which artefact was made by what, from what."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutsew.artefacts.layout import folder_of
from cutsew.outputs import SEALED_BY

RECORDS = ".records"
"""End of the name of the folder beside a Zarr, such as views.zarr, that holds the records of its shards' jobs."""


@dataclass(frozen=True)
class Made:
    """One record, its paths resolved.

    Attributes:
        record: the record's file.
        content: all that it holds.
        inputs: file or Zarr folder -> digest that it had.
        outputs: file, Zarr folder, chunk file or folder of photos -> digest that it had.

    """

    record: Path
    content: dict[str, Any]
    inputs: dict[Path, str]
    outputs: dict[Path, str]

    @property
    def stage(self) -> str:
        """Name of the stage that wrote it."""
        return str(self.content["stage"])

    @property
    def artefact(self) -> Path:
        """The artefact that the record is named after: the first of what was written."""
        return next(iter(self.outputs), self.record)


class BadRecord(Exception):  # noqa: N818
    """A record that cannot be read."""


@dataclass
class Traces:
    """Records, read folder by folder as they are asked for."""

    bad: dict[Path, str] = field(default_factory=dict)
    _folders: dict[Path, list[Made]] = field(default_factory=dict)
    _makers: dict[Path, Made] = field(default_factory=dict)

    def of_folder(self, folder: Path) -> list[Made]:
        """Return the records of a run's folder; those that cannot be read are kept in `bad`."""
        folder = plain(folder)
        if folder not in self._folders:
            self._folders[folder] = found = list(self._read(_record_files(folder)))
            for made in found:
                for path in made.outputs:
                    known = self._makers.get(path)
                    # Both the shard's job and the seal name a chunk file; the job is what made it.
                    if known is None or made.stage in SEALED_BY:
                        self._makers[path] = made
        return self._folders[folder]

    def maker(self, artefact: Path) -> Made | None:
        """Return the record of what made a file, a Zarr group or a file within either; None where there is none."""
        path = folder_of(plain(artefact))
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

    def jobs_of(self, seal: Made) -> list[Made]:
        """Return the records of the jobs whose chunk files a seal names."""
        makers = (self._makers[path] for path in seal.outputs)
        return list({made.record: made for made in makers if made.stage in SEALED_BY}.values())

    def _read(self, files: Iterable[Path]) -> Iterator[Made]:
        for file in files:
            try:
                made = read_record(file)
            except BadRecord as error:
                self.bad[file] = str(error)
                continue
            if made is not None:
                yield made


def plain(path: Path) -> Path:
    """Return the path without `..`, absolute; links are not followed, so that what is printed is what was given."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def read_record(file: Path) -> Made | None:
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
    return Made(
        file,
        content,
        {folder_of(plain(file.parent / name)): str(digest) for name, digest in inputs.items()},
        {plain(base / name): str(digest) for name, digest in outputs.items()},
    )


def _record_files(folder: Path) -> list[Path]:
    return [
        path for pattern in ("", f"*{RECORDS}/", "references/*/") for path in sorted(folder.glob(f"{pattern}*.json"))
    ]
