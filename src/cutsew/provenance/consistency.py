"""Whether artifacts are consistent: the inputs that a record lists are the outputs that other records list."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from cutsew.errors import UserError
from cutsew.pipeline.outputs import FINALIZED_BY
from cutsew.provenance.lineage import ProvenanceIndex, StoredRecord
from cutsew.provenance.record import input_digest, listing_digests
from cutsew.storage.label_corrections import COLUMNS, FILE, digest_of
from cutsew.storage.manifest import read_manifest, shard_digests
from cutsew.storage.tables import read_parquet
from cutsew.storage.zarr_layout import folder_of

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
    for record in records:
        for path in record.inputs:
            readers[path].append(record)
    misfits: dict[Path, list[StoredRecord]] = {}
    for path, readers_of_path in readers.items():
        now, maker = _now(path, traces), traces.producer_of(path)
        if now is None:
            yield path, f"missing, and {_names(readers_of_path)} was made from it", maker is not None
            continue
        misfits[path] = []
        for reader in readers_of_path:
            if reader.inputs[path] == now or _same(reader, path):
                continue
            if precedes(reader, maker):
                yield reader.artifact, f"stale: made from an earlier {path.name}", True
            else:
                misfits[path].append(reader)
    counts = Counter(reader.file for misfits_of_path in misfits.values() for reader in misfits_of_path)
    for path, misfits_of_path in misfits.items():
        if (
            traces.producer_of(path) is None
            or len(misfits_of_path) < len(readers[path])
            or all(counts[reader.file] > 1 for reader in misfits_of_path)
        ):
            for reader in misfits_of_path:
                yield reader.artifact, f"stale or from elsewhere: made from another {path.name}", True
        else:
            yield path, f"from elsewhere: not the one that {_names(misfits_of_path)} was made from", True


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
