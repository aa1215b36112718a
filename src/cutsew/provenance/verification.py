"""Checking that a run's artifacts are those that their records describe, and consistent with each other."""

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cutsew.pipeline.outputs import FINALIZED_BY, LAST_FILES, OUTPUTS
from cutsew.provenance.consistency import find_inconsistencies, precedes
from cutsew.provenance.lineage import ProvenanceIndex, StoredRecord, plain
from cutsew.runtime.processes import SNAKEMAKE
from cutsew.storage.file_digests import file_digest
from cutsew.storage.zarr_layout import BOXES, CROPS, GLOBAL, TAGCLIP_GLOBAL, TAGCLIP_LOCAL
from cutsew.storage.zarr_writer import chunk_files, content_digest

SUFFIXES = {"JPEGImages": ".jpg", "Annotations": ".xml"}
LISTS = ("train", "val")


def is_world(path: Path) -> bool:
    """Check whether a record's output is a folder of the demo's files."""
    return path.name in SUFFIXES and path.parent.name == "world"


def folder_digest(folder: Path, digest: Callable[[Path], str]) -> tuple[list[Path], str]:
    """Return files of the lists that are lost, and the digest over all files in the order of the lists."""
    lists = [folder.parent / "ImageSets" / "Main" / f"{name}.txt" for name in LISTS]
    names = [name for path in lists if path.is_file() for name in path.read_text(encoding="utf-8").split()]
    files = [folder / f"{name}{SUFFIXES[folder.name]}" for name in names]
    missing = [path for path in files if not path.is_file()]
    if missing:
        return missing, ""
    return [], hashlib.sha256("\n".join(digest(path) for path in files).encode()).hexdigest()


OF_SHARDS = {"views.zarr": (GLOBAL, CROPS, BOXES), "tagclip.zarr": (TAGCLIP_LOCAL, TAGCLIP_GLOBAL)}
"""Zarr -> its arrays of which the job of a shard writes a chunk file each."""

JOB_OF = {"seal": "encoding", "seal_tagclip": "TagCLIP"}
"""How the jobs that a seal names are called."""


MOST_TARGETS = 20
"""Targets in a printed command."""


@dataclass(frozen=True)
class Finding:
    """Something that does not match its record.

    Attributes:
        path: the artifact, or the very file of it.
        wrong: what is wrong with it.
        target: what the workflow is to make again; None where no rule makes it.
        damaged: its bytes are not those that were recorded; otherwise it is whole, but stale or from elsewhere.

    """

    path: Path
    wrong: str
    target: Path | None
    damaged: bool = True


def _record_names() -> dict[str, str]:
    """Map each artifact's name to that of its record: the one of its own name, else the first of its stage."""
    result: dict[str, str] = {}
    for names in OUTPUTS.values():
        records = [name for name in names if name.endswith(".json")]
        for name in names if records else ():
            record_name = f"{Path(name).stem}.json"
            result[name] = record_name if record_name in records else records[0]
    result["labels.zarr"] = "labels.json"  # of a reference student, in a folder below references/
    return {name: record for name, record in result.items() if not name.endswith(".json")}


RECORD_OF = _record_names()


def transitive_records(folder: Path, traces: ProvenanceIndex) -> list[StoredRecord]:
    """Return a run's records and those of all that it was made from, in whatever run's folder they are."""
    records: dict[Path, StoredRecord] = {}
    waiting = _current(folder, traces)
    while waiting:
        record = waiting.pop()
        if record.file in records:
            continue
        records[record.file] = record
        waiting += [maker for path in record.inputs if (maker := traces.producer_of(path)) is not None]
        if record.stage in FINALIZED_BY.values():
            waiting += traces.jobs_of(record)
    return sorted(records.values(), key=lambda record: record.file)


def _current(folder: Path, traces: ProvenanceIndex) -> list[StoredRecord]:
    """Leave out jobs that their seal does not name: passes of earlier settings, kept for going back to them."""
    records = traces.of_folder(folder)
    stages = {record.stage for record in records}
    return [record for record in records if FINALIZED_BY.get(record.stage) not in stages]


@dataclass
class Verifier:
    """One check of a run.

    Attributes:
        traces: the records.
        tick: called with each file that was digested.

    """

    traces: ProvenanceIndex
    tick: Callable[[Path], object] = lambda _: None
    _digests: dict[Path, str] = field(default_factory=dict)

    def findings(self, folder: Path) -> list[Finding]:
        """Return all that is wrong with a run, each path once, in the order of paths."""
        folder = plain(folder)
        records = transitive_records(folder, self.traces)
        result: dict[Path, Finding] = {}
        for finding in (
            *self._bad_records(),
            *(finding for record in records for finding in self._bytes(record)),
            *(
                finding
                for home in sorted({record.file.parent for record in records})
                for finding in self._unrecorded(home)
            ),
        ):
            result.setdefault(finding.path, finding)
        for path, wrong, ruled in find_inconsistencies(records, self.traces):
            result.setdefault(path, Finding(path, wrong, target_of(path) if ruled else None, damaged=False))
        return [result[path] for path in sorted(result)]

    @property
    def checked(self) -> int:
        """How many files were digested."""
        return len(self._digests)

    def _bad_records(self) -> Iterator[Finding]:
        for record, wrong in self.traces.bad.items():
            yield Finding(record, wrong, record)

    def _unrecorded(self, folder: Path) -> Iterator[Finding]:
        for name, record in sorted(RECORD_OF.items()):
            if folder.joinpath(name).exists() and not folder.joinpath(record).is_file():
                yield Finding(
                    folder / name, f"has no record that says how it was made ({record})", target_of(folder / name)
                )

    def _bytes(self, record: StoredRecord) -> Iterator[Finding]:
        """Compare what a record says was written with what is there."""
        if record.stage in FINALIZED_BY.values():
            yield from self._unrecorded_chunks(record)
        for path, digest in record.outputs.items():
            if path.suffix == ".zarr":
                yield from self._group(record, path, digest)
            elif is_world(path):
                yield from self._world(path, digest)
            elif not path.is_file():
                yield Finding(path, "missing", target_of(path))
            elif self._digest(path) != digest:
                yield self._other_bytes(record, path)

    def _other_bytes(self, record: StoredRecord, path: Path) -> Finding:
        """Name the file whose bytes a record does not name, or the seal as stale where a later job wrote the file."""
        job = self.traces.producer_of(path)
        if job is not None and precedes(record, job) and job.outputs[path] == self._digest(path):
            group = next(parent for parent in path.parents if parent.suffix == ".zarr")
            wrong = f"stale: sealed before {path.relative_to(group)} was made"
            return Finding(group, wrong, target_of(group), damaged=False)
        return Finding(path, f"its bytes are not those that {record.file.name} names", target_of(path))

    def _unrecorded_chunks(self, seal: StoredRecord) -> Iterator[Finding]:
        for path in seal.outputs:
            maker = self.traces.producer_of(path)
            if path.suffix != ".zarr" and path.is_file() and (maker is None or maker.stage not in FINALIZED_BY):
                yield Finding(path, f"has no record of its {JOB_OF[seal.stage]} job", target_of(path))

    def _group(self, record: StoredRecord, group: Path, digest: str) -> Iterator[Finding]:
        seal = group / "zarr.json"
        if not seal.is_file():
            yield Finding(group, "missing, or not finished: it has no zarr.json", target_of(group))
            return
        digests: dict[str, str] = {}
        broken = False
        for array in sorted(path for path in group.iterdir() if path.is_dir()):
            for finding in self._array(record, array, digests):
                broken = True
                yield finding
        if broken:
            return
        content = content_digest(group, digests)
        if content != digest:
            whole = content == _sealed(seal)
            wrong = "is not the one that its record describes" if whole else "its bytes are not those that were sealed"
            yield Finding(group, wrong, target_of(group))
        elif _sealed(seal) != digest or self._digest(seal) != record.content.get("seals", {}).get(
            group.name, self._digest(seal)
        ):
            yield Finding(seal, "its bytes are not those that were sealed", target_of(group))

    def _array(self, record: StoredRecord, array: Path, digests: dict[str, str]) -> Iterator[Finding]:
        """Digest an array's files; name those that are lost, unreadable or other than recorded one by one."""
        try:
            files = ["zarr.json", *chunk_files(array)]
        except (OSError, ValueError, KeyError, TypeError):
            wrong = "not readable" if array.joinpath("zarr.json").is_file() else "missing"
            yield Finding(array / "zarr.json", wrong, target_of(array.parent))
            return
        for name in files:
            path = array / name
            if not path.is_file():
                yield Finding(path, "this chunk is missing", target_of(path))
                continue
            digests[f"{array.name}/{name}"] = self._digest(path)
            if self._digest(path) != record.outputs.get(path, self._digest(path)):
                yield self._other_bytes(record, path)

    def _world(self, path: Path, digest: str) -> Iterator[Finding]:
        missing, result = folder_digest(path, self._digest)
        for image in missing:
            yield Finding(image, "missing", target_of(path))
        if not missing and result != digest:
            yield Finding(path, "a file in it is not as it was drawn", target_of(path))

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = file_digest(path)
            self.tick(path)
        return self._digests[path]


def target_of(path: Path) -> Path:
    """Return the file that a rule writes and that holds `path`: a shard's chunk file, a zarr.json, a table."""
    for part in (path, *path.parents):
        if path.relative_to(part).parts[:1] in {(array,) for array in OF_SHARDS.get(part.name, ())}:
            return path if path.name != "zarr.json" else part / "zarr.json"
        if part.suffix == ".zarr":
            return part / "zarr.json"
        if part.name == "world":
            return part.with_name("world.json")
    return path


def rebuild(findings: Sequence[Finding], folder: Path, records: Iterable[StoredRecord]) -> str | None:
    """Return the shell command that rebuilds all that was found, and what depends on it up to the run's last files.

    Args:
        findings: of one run; those that no rule makes are left out, and those beyond MOST_TARGETS.
        folder: the run's folder, absolute.
        records: records of the run; the last written says how snakemake was called.

    Returns:
        A command to be given in the working folder; None where there is nothing that a rule makes.

    """
    home = next((parent.parent for parent in folder.parents if parent.name == "results"), Path.cwd())
    made = [finding for finding in findings if finding.target is not None][:MOST_TARGETS]
    targets = list(dict.fromkeys(os.path.relpath(f.target, home) for f in made if f.target is not None))
    if not targets:
        return None
    stale = {finding.path for finding in made}
    last_files = [path for path in (folder / name for name in LAST_FILES.values()) if path.exists() or path in stale]
    goals = [os.path.relpath(path, home) for path in last_files] or targets
    last = max(records, key=lambda record: str(record.content.get("end")), default=None)
    command = str(last.content.get("command") or SNAKEMAKE) if last is not None else SNAKEMAKE
    # `--` ends the list of --forcerun, which would otherwise swallow the goals.
    command += f" --forcerun {shlex.join(targets)} -- {shlex.join(goals)}"
    # The manifest reads the earlier one to keep images in their places, so a damaged one has to go first.
    damaged = [os.path.relpath(f.path, home) for f in made if f.path.name == "images.parquet" and f.damaged]
    command = f"rm -f {shlex.join(damaged)} && {command}" if damaged else command
    return command if home == Path.cwd() else f"cd {shlex.quote(str(home))} && {command}"


def _sealed(seal: Path) -> str | None:
    try:
        return str(json.loads(seal.read_text(encoding="utf-8"))["attributes"]["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
