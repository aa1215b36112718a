"""Reading records back, and checking that artifacts are mutually consistent.

- Reading records back: which artifact was made by what, from what.
- Checks that artifacts are consistent: the inputs that a record lists are the outputs that other records list.
- How tools print paths.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cutsew.errors import UserError
from cutsew.pipeline.outputs import FINALIZED_BY
from cutsew.provenance.record import input_digest, listing_digests
from cutsew.storage.label_corrections import COLUMNS, FILE, digest_of
from cutsew.storage.manifest import read_manifest, shard_digests
from cutsew.storage.tables import read_parquet
from cutsew.storage.zarr_layout import folder_of

RECORDS = ".records"
"""End of the name of the folder next to a Zarr, such as views.zarr, that holds the records of its shards' jobs."""


@dataclass(frozen=True)
class StoredRecord:
    """One record, its paths resolved.

    Attributes:
        record: the record's file.
        content: all that it holds.
        inputs: file or Zarr folder -> digest that it had.
        outputs: file, Zarr folder, chunk file or folder of images -> digest that it had.

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
    def artifact(self) -> Path:
        """The artifact that the record is named after: the first of what was written."""
        return next(iter(self.outputs), self.record)


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
        return list({result.record: result for result in makers if result.stage in FINALIZED_BY}.values())

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


SHOW_PATHS = ("labels_table", "report")
"""Stages that depend on the images' paths too."""

Inconsistency = tuple[Path, str, bool]
"""What is stale or foreign, why, and whether a rule makes it."""


def find_inconsistencies(records: Sequence[StoredRecord], traces: ProvenanceIndex) -> Iterator[Inconsistency]:
    """Name artifacts that were made from others than those that are there.

    A reader that started before its present input was finished is stale: the input was recomputed and the reader was
    not. Where the input is older than its reader, one of them came from elsewhere: the input if all its readers
    disagree with it, the reader if the input agrees with others or the reader disagrees with several of its inputs.
    Rebuilding what is named also rebuilds all that depends on it.
    """
    readers: dict[Path, list[StoredRecord]] = defaultdict(list)
    for made in records:
        for path in made.inputs:
            readers[path].append(made)
    wrong: dict[Path, list[StoredRecord]] = {}
    for path, inconsistent in readers.items():
        now = _now(path, traces)
        if now is None:
            yield path, f"missing, and {_names(inconsistent)} was made from it", traces.producer_of(path) is not None
            continue
        maker = traces.producer_of(path)
        odd = [
            (output, precedes(output, maker))
            for output in inconsistent
            if output.inputs[path] != now and not _same(output, path)
        ]
        yield from ((made.artifact, f"stale: made from an earlier {path.name}", True) for made, stale in odd if stale)
        wrong[path] = [result for result, stale in odd if not stale]
    counts: dict[Path, int] = defaultdict(int)
    for inconsistent in wrong.values():
        for made in inconsistent:
            counts[made.record] += 1
    for path, inconsistent in wrong.items():
        several = [produced for produced in inconsistent if counts[produced.record] > 1]
        if not inconsistent:
            continue
        if (
            traces.producer_of(path) is None
            or len(inconsistent) < len(readers[path])
            or len(several) == len(inconsistent)
        ):
            for made in inconsistent:
                yield made.artifact, f"stale or from elsewhere: made from another {path.name}", True
        else:
            yield path, f"from elsewhere: not the one that {_names(inconsistent)} was made from", True


def precedes(reader: StoredRecord, maker: StoredRecord | None) -> bool:
    """Check whether a stage started before its present input was finished; where a time is missing, not."""
    if maker is None:
        return False
    try:
        return datetime.fromisoformat(reader.content["start"]) < datetime.fromisoformat(maker.content["end"])
    except (KeyError, TypeError, ValueError):
        return False


def _now(path: Path, traces: ProvenanceIndex) -> str | None:
    """Return the digest that an input has now: as its own record says, else of its bytes; None where it is lost."""
    maker = traces.producer_of(path)
    if maker is not None and path in maker.outputs:
        return maker.outputs[path]
    try:
        return input_digest(path)
    except (OSError, ValueError, KeyError, UserError):
        return None


def _same(record: StoredRecord, path: Path) -> bool:
    """Check whether a stage would read the same from an input whose bytes have changed."""
    if path.name == FILE and record.stage == "override":
        # Where no training image is corrected any more, what was made of earlier corrections is left over and unread.
        return path.is_file() and _trained_on(path) in ("", record.content.get("facts", {}).get("digest"))
    return _same_images(record, path)


def _trained_on(corrections: Path) -> str:
    """Digest the corrections of training images."""
    table = read_parquet(corrections, COLUMNS)
    return digest_of(table[table["split"] == "train"])


def _same_images(record: StoredRecord, manifest: Path) -> bool:
    """Check whether a new manifest is equal in all that a stage reads, so that the stage need not rerun."""
    if manifest.name != "images.parquet" or not manifest.is_file():
        return False
    if record.stage in FINALIZED_BY:
        shard = int(record.artifact.parts[-2])
        rows = shard_digests(read_manifest(manifest)).get(shard)
        return rows is not None and bool(rows == record.content.get("facts", {}).get("rows"))
    part = "digest" if record.stage in FINALIZED_BY.values() else "placed" if record.stage in SHOW_PATHS else "listed"
    then = record.content.get("listing", {}).get(part)
    return then is not None and bool(then == listing_digests(manifest).get(part))


def _names(records: Sequence[StoredRecord]) -> str:
    names = sorted({folder_of(record.artifact).name for record in records})
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def shown(path: Path) -> str:
    """Return a path below the working folder as relative to it, another as it is."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
