"""Were neighbouring artefacts made from one another? Records' inputs, held against what their inputs' records say."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from cutsew.artefacts.corrections import COLUMNS, FILE, digest_of
from cutsew.artefacts.layout import folder_of
from cutsew.artefacts.manifest import read_manifest, shard_digests
from cutsew.artefacts.record import input_digest, listing_digests
from cutsew.artefacts.tables import read_parquet
from cutsew.artefacts.trace import Made, Traces
from cutsew.errors import UserError
from cutsew.outputs import SEALED_BY

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
    """Tell whether a new manifest says the same of all that a stage looks at, so that it need not run again."""
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
