"""Reading records back, and checking that artefacts are mutually consistent.

- Reading records back: which artefact was made by what, from what.
- Were neighbouring artefacts made from one another? Records' inputs, held against what their inputs' records say.
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
from cutsew.pipeline.outputs import SEALED_BY
from cutsew.provenance.record import input_digest, listing_digests
from cutsew.storage.label_corrections import COLUMNS, FILE, digest_of
from cutsew.storage.manifest import read_manifest, shard_digests
from cutsew.storage.tables import read_parquet
from cutsew.storage.zarr_layout import folder_of

RECORDS = ".records"
"""End of the name of the folder next to a Zarr, such as views.zarr, that holds the records of its shards' jobs."""


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
    """Records, read lazily folder by folder."""

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


Suspect = tuple[Path, str, bool]
"""What is stale or foreign, why, and whether a rule makes it."""


def suspects(records: Sequence[Made], traces: Traces) -> Iterator[Suspect]:
    """Name artefacts that were made from others than those that are there.

    A reader that started before its present input was finished is stale: the input was recomputed and the reader was
    not. Where the input is older than its reader, one of them came from elsewhere: the input if all its readers
    disagree with it, the reader if the input agrees with others or the reader disagrees with several of its inputs.
    Rebuilding what is named also rebuilds all that depends on it.
    """
    readers: dict[Path, list[Made]] = defaultdict(list)
    for made in records:
        for path in made.inputs:
            readers[path].append(made)
    wrong: dict[Path, list[Made]] = {}
    for path, those in readers.items():
        now = _now(path, traces)
        if now is None:
            yield path, f"missing, and {_names(those)} was made from it", traces.maker(path) is not None
            continue
        maker = traces.maker(path)
        odd = [(made, precedes(made, maker)) for made in those if made.inputs[path] != now and not _same(made, path)]
        yield from ((made.artefact, f"stale: made from an earlier {path.name}", True) for made, stale in odd if stale)
        wrong[path] = [made for made, stale in odd if not stale]
    counts: dict[Path, int] = defaultdict(int)
    for those in wrong.values():
        for made in those:
            counts[made.record] += 1
    for path, those in wrong.items():
        several = [made for made in those if counts[made.record] > 1]
        if not those:
            continue
        if traces.maker(path) is None or len(those) < len(readers[path]) or len(several) == len(those):
            for made in those:
                yield made.artefact, f"stale or from elsewhere: made from another {path.name}", True
        else:
            yield path, f"from elsewhere: not the one that {_names(those)} was made from", True


def precedes(reader: Made, maker: Made | None) -> bool:
    """Tell whether a stage started before its present input was finished; where a time is missing, not."""
    if maker is None:
        return False
    try:
        return datetime.fromisoformat(reader.content["start"]) < datetime.fromisoformat(maker.content["end"])
    except (KeyError, TypeError, ValueError):
        return False


def _now(path: Path, traces: Traces) -> str | None:
    """Return the digest that an input has now: as its own record says, else of its bytes; None where it is lost."""
    maker = traces.maker(path)
    if maker is not None and path in maker.outputs:
        return maker.outputs[path]
    try:
        return input_digest(path)
    except (OSError, ValueError, KeyError, UserError):
        return None


def _same(made: Made, path: Path) -> bool:
    """Tell whether a stage would read the same from an input whose bytes have changed."""
    if path.name == FILE and made.stage == "override":
        # Where no training photo is corrected any more, what was made of earlier corrections is left over and unread.
        return path.is_file() and _trained_on(path) in ("", made.content.get("facts", {}).get("digest"))
    return _same_photos(made, path)


def _trained_on(corrections: Path) -> str:
    """Digest the corrections of training photos."""
    table = read_parquet(corrections, COLUMNS)
    return digest_of(table[table["split"] == "train"])


def _same_photos(made: Made, manifest: Path) -> bool:
    """Check whether a new manifest is equal in all that a stage reads, so that the stage need not rerun."""
    if manifest.name != "images.parquet" or not manifest.is_file():
        return False
    if made.stage in SEALED_BY:
        shard = int(made.artefact.parts[-2])
        rows = shard_digests(read_manifest(manifest)).get(shard)
        return rows is not None and bool(rows == made.content.get("facts", {}).get("rows"))
    part = "digest" if made.stage in SEALED_BY.values() else "listed"
    then = made.content.get("listing", {}).get(part)
    return then is not None and bool(then == listing_digests(manifest).get(part))


def _names(those: Sequence[Made]) -> str:
    names = sorted({folder_of(made.artefact).name for made in those})
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def shown(path: Path) -> str:
    """Return a path below the working folder as relative to it, another as it is."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
