"""How the artefacts of a report were made, from the records beside them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cutsew.artefacts.layout import folder_of
from cutsew.pipeline import STAGES

Json = dict[str, Any]


def records(artefacts: Iterable[Path]) -> dict[Path, Json]:
    """Read the records of some artefacts and of all that they were made from.

    Args:
        artefacts: files and Zarrs (folder or `zarr.json`).

    Returns:
        Path of each record -> its content, in the order of the pipeline. An artefact without a record is passed over.

    """
    found: dict[Path, Json] = {}
    waiting = [folder_of(path) for path in artefacts]
    while waiting:
        artefact = waiting.pop()
        for path, content in _records_of(artefact):
            if path not in found:
                found[path] = content
                waiting.extend(folder_of((path.parent / name).resolve()) for name in content["inputs"])
    order = {stage: place for place, stage in enumerate(STAGES)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[1]["stage"], len(order)), str(item[0]))))


def flat_settings(contents: Iterable[Json]) -> dict[str, Any]:
    """Gather the settings of all records under their dotted names."""
    gathered: dict[str, Any] = {}
    for content in contents:
        gathered |= _flatten(content["settings"], "")
    gathered.pop("version", None)
    return dict(sorted(gathered.items()))


def packages(contents: Iterable[Json]) -> dict[str, str]:
    """Gather the package versions of all records; where they differ, all are named."""
    seen: dict[str, dict[str, None]] = {}
    for content in contents:
        for name, version in {"python": content.get("python"), **content.get("packages", {})}.items():
            if version:
                seen.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(versions) for name, versions in sorted(seen.items())}


def _records_of(artefact: Path) -> list[tuple[Path, Json]]:
    """Find the record beside an artefact: of the same stem, or any that names it among what it wrote."""
    beside = artefact.with_suffix(".json")
    candidates = [beside] if beside.is_file() else sorted(artefact.parent.glob("*.json"))
    read = [(path.resolve(), _read(path)) for path in candidates if path != artefact]
    return [(path, content) for path, content in read if content and artefact.name in content["outputs"]]


def _read(path: Path) -> Json | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(content, dict) and {"stage", "settings", "inputs", "outputs"} <= content.keys()
    return content if whole else None


def _flatten(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
