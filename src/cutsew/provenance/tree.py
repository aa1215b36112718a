"""What an artifact was made from, as a tree that ends at the images and the user's own files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cutsew.config.base import to_location
from cutsew.pipeline.outputs import FINALIZED_BY
from cutsew.provenance.lineage import ProvenanceIndex, StoredRecord, plain
from cutsew.storage.zarr_layout import folder_of

LONGEST = 110
"""Characters of a line of settings."""

SHOWN = 4
"""Items of a list of settings that are shown."""


@dataclass
class ProvenanceNode:
    """An artifact, how it was made and from what.

    Attributes:
        path: the artifact, the user's file, or the folder or URL of the images.
        kind: "made", "given" (no stage made it), "above" (already shown) or "lost" (neither present nor recorded).
        facts: stage, version, settings, start and end; for images and given files, what is known of them.
        causes: what it was made from.

    """

    path: Path | str
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    causes: list["ProvenanceNode"] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the tree as plain JSON values."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            **self.facts,
            **({"inputs": [cause.as_dict() for cause in self.causes]} if self.causes else {}),
        }


def explain(artifact: Path, traces: ProvenanceIndex, visited: set[Path] | None = None) -> ProvenanceNode:
    """Return the provenance of an artifact, with each source shown once.

    Args:
        artifact: a file, a Zarr group or a chunk file of one.
        traces: the records.
        visited: records that were already visited.

    """
    visited = set() if visited is None else visited
    path = folder_of(plain(artifact))
    record = traces.producer_of(path)
    if record is None:
        return ProvenanceNode(path, "given" if path.exists() else "lost")
    if record.file in visited:
        return ProvenanceNode(path, "above")
    visited.add(record.file)
    content = record.content
    facts = {name: content.get(name) for name in ("stage", "version", "settings", "commit", "start", "end")}
    facts |= {"record": str(record.file), "facts": content.get("facts", {})}
    causes = [explain(source, traces, visited) for source in record.inputs]
    if record.stage in FINALIZED_BY.values():
        causes += [explain(job.artifact, traces, visited) for job in traces.jobs_of(record)]
    causes += _images(record, traces)
    return ProvenanceNode(path, "made", facts, causes)


def _images(record: StoredRecord, traces: ProvenanceIndex) -> list[ProvenanceNode]:
    """Return the folder of images that a manifest lists, made by a download where one fetched them."""
    facts, dataset = record.content.get("facts", {}), record.content.get("settings", {}).get("dataset", {})
    if record.stage != "manifest" or dataset.get("kind") == "ids":
        return []
    counts = {name: facts[name] for name in ("train", "test", "skipped") if name in facts}
    return [
        ProvenanceNode(
            to_location(facts.get("root") or "."),
            "images",
            counts,
            list(_downloads(record, dataset.get("root"), traces)),
        )
    ]


def _downloads(manifest: StoredRecord, root: str | None, traces: ProvenanceIndex) -> Iterator[ProvenanceNode]:
    """Find the download of a manifest's images, in whichever run's folder; a copy that was there is none."""
    for file in sorted(manifest.file.parent.parent.glob("*/download.json")):
        for record in traces.of_folder(file.parent):
            same = record.content.get("settings", {}).get("dataset", {}).get("root") == root
            if record.file == file and same and record.content.get("facts", {}).get("downloaded"):
                facts = {
                    name: record.content.get(name) for name in ("stage", "version", "settings", "start", "end", "facts")
                }
                yield ProvenanceNode(file, "made", {**facts, "record": str(file)})


def lines(cause: ProvenanceNode, show: Any = str, first: str = "", rest: str = "") -> Iterator[str]:  # noqa: ANN401
    """Draw the tree.

    Args:
        cause: its top.
        show: how a path is printed.
        first: what stands before the top's line.
        rest: what stands before the lines below it.

    """
    origin = f": {cause.facts['stage']} v{cause.facts['version']}" if cause.kind == "made" else _other(cause)
    yield f"{first}{show(cause.path) if isinstance(cause.path, Path) else cause.path}{origin}"
    below = list(_merged(cause.causes))
    settings_text = _settings(cause)
    if settings_text:
        yield f"{rest}{'|  ' if below else '   '}{settings_text}"
    for number, (source, jobs) in enumerate(below):
        last = number == len(below) - 1
        branch = list(lines(source, show, f"{rest}{'`- ' if last else '|- '}", f"{rest}{'   ' if last else '|  '}"))
        if jobs:
            branch[0] += f" (and {jobs} more jobs with the same settings)"
        yield from branch


def _other(cause: ProvenanceNode) -> str:
    if cause.kind == "images":
        counts = ", ".join(f"{count} {name}" for name, count in cause.facts.items())
        return f": images ({counts})"
    return {"given": ": given, no stage made it", "above": ": see above", "lost": ": lost, and without a record"}[
        cause.kind
    ]


def _merged(causes: list[ProvenanceNode]) -> Iterator[tuple[ProvenanceNode, int]]:
    """Draw the jobs of shards with the same settings as one; give how many more there are."""
    jobs: dict[str, list[ProvenanceNode]] = {}
    for cause in causes:
        if cause.facts.get("stage") in FINALIZED_BY:
            key = json.dumps([cause.facts["stage"], cause.facts["version"], cause.facts["settings"]], sort_keys=True)
            jobs.setdefault(key, []).append(cause)
        else:
            yield cause, 0
    for group in jobs.values():
        yield group[0], len(group) - 1


def _settings(cause: ProvenanceNode) -> str:
    """Return settings, and the digest of the weights, as one short line of YAML."""
    settings = dict(cause.facts.get("settings") or {})
    settings.pop("version", None)
    weights = cause.facts.get("facts", {}).get("weights") if cause.kind == "made" else None
    if weights:
        settings["weights"] = str(weights)[:12]
    if not settings:
        return ""
    text = yaml.safe_dump(_short(settings), default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    text = text.strip()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _short(value: Any) -> Any:  # noqa: ANN401
    """Shorten long lists and leave out what is not set."""
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items() if item is not None}
    if isinstance(value, list) and len(value) > SHOWN:
        return [*map(_short, value[:SHOWN]), f"and {len(value) - SHOWN} more"]
    return [_short(item) for item in value] if isinstance(value, list) else value
