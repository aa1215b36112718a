"""What differs between a record and now: settings, and the dataset's images."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cutsew.config import Config
from cutsew.config.dataset import ContainersConfig
from cutsew.data.listing import drops_images, last_listed
from cutsew.provenance.lineage import StoredRecord
from cutsew.runtime.processes import COMMAND, SNAKEMAKE
from cutsew.storage.manifest import read_manifest

LONGEST = 40
"""Characters of a value."""


MOST_ITEMS = 8
"""Items that are named of a list."""


def setting_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Word how settings differ, by their dotted names; credentials in addresses are left out.

    Settings that only one side has are named where nothing else of their section differs: otherwise they come and go
    with it, as `fuse.gate` with `fuse.rule`.
    """
    old, new = _flat(before), _flat(now)
    old.pop("version", None)
    changed = [name for name in new if name in old and old[name] != new[name]]
    for name in changed:
        yield _change(name, old[name], new[name])
    explained = {name.partition(".")[0] for name in changed}
    single = [name for name in sorted(old.keys() ^ new.keys()) if name.partition(".")[0] not in explained]
    # What is not set is worth a line only where nothing else is: then cutsew itself has other settings.
    for name in [name for name in single if (old | new)[name] is not None] or ([] if changed else single[:1]):
        yield f"{name} added: {_short(new[name])}" if name in new else f"{name} removed: {_short(old[name])}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _change(name: str, old: Any, new: Any) -> str:  # noqa: ANN401
    if isinstance(old, list) and isinstance(new, list) and max(len(old), len(new)) > 2:
        more, less = [x for x in new if x not in old], [x for x in old if x not in new]
        signed = [f"+ {_short(item)}" for item in more] + [f"- {_short(item)}" for item in less]
        rest = [f"and {len(signed) - MOST_ITEMS} more"] if len(signed) > MOST_ITEMS else []
        return f"{name}: {', '.join(signed[:MOST_ITEMS] + rest) or 'another order'}"
    return f"{name} {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:  # noqa: ANN401
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = re.sub(r"://[^/@\s]+@", "://", text) or "''"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def image_differences(config: Config, manifest: Path, record: StoredRecord) -> Iterator[str]:
    """Count images added, removed and changed in size, by the listing that the manifest's rule made for its params."""
    if isinstance(config.dataset, ContainersConfig) or isinstance(config.dataset.location, str):
        yield "images or their files edited"
        return
    listed = last_listed(config)
    if listed is None or not manifest.is_file():
        return
    key = "path" if config.dataset.kind in ("folder", "coco") else "id"
    table = read_manifest(manifest, columns=("id", "path", "bytes"))
    recorded = dict(zip(table[key], table["bytes"], strict=True))
    ignored = _skipped(manifest.with_name("skipped.csv"))
    present = {name: size for name, size in listed.items() if size is not None}
    # Images without scores or labels may be left out, and a folder may hold images that COCO's lists do not name.
    counts = record.content.get("facts", {})
    partial = config.dataset.kind == "coco" or counts.get("dropped") or drops_images(config.teacher)
    added = 0 if partial else len(present.keys() - recorded.keys() - ignored)
    removed = len(recorded.keys() - present.keys())
    resized = sum(recorded[name] != size for name, size in present.items() if name in recorded)
    parts = [(added, "added"), (removed, "removed"), (resized, "edited")]
    counted = [f"{count} {what}" for count, what in parts if count]
    if counted:
        first, *others = counted
        number, _, verb = first.partition(" ")
        yield ", ".join([f"{number} image{'' if number == '1' else 's'} {verb}", *others])
    elif partial:
        yield "images or their lists edited"
    else:
        yield (
            "images have other times, but the same names and sizes: they are read again, and only edited ones count "
            f"(copied or touched? To keep all results without reading them: {touch()})"
        )


def _skipped(table: Path) -> set[str]:
    if not table.is_file():
        return set()
    with table.open(encoding="utf-8", newline="") as stream:
        return {row.get("path") or "" for row in csv.DictReader(stream)}


def touch() -> str:
    """Return the command that marks outputs as up to date."""
    return f"{command()} --touch"


def command() -> str:
    """Return the command that started Snakemake, or its plain name."""
    return os.environ.get(COMMAND, SNAKEMAKE)
