"""What an artefact was made from, as a tree that ends at the photos and the user's own files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cutsew.pipeline.outputs import SEALED_BY
from cutsew.provenance.lineage import Made, Traces, plain
from cutsew.storage.zarr_layout import folder_of

LONGEST = 110
"""Characters of a line of settings."""

SHOWN = 4
"""Items of a list of settings that are shown."""


@dataclass
class Cause:
    """An artefact, how it was made and from what.

    Attributes:
        path: the artefact, the user's file or the folder of photos.
        kind: "made", "given" (no stage made it), "above" (already shown) or "lost" (neither present nor recorded).
        facts: stage, version, settings, start and end; for photos and given files, what is known of them.
        causes: what it was made from.

    """

    path: Path
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    causes: list["Cause"] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the tree as plain JSON values."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            **self.facts,
            **({"inputs": [cause.as_dict() for cause in self.causes]} if self.causes else {}),
        }


def explain(artefact: Path, traces: Traces, told: set[Path] | None = None) -> Cause:
    """Return the provenance of an artefact, with each source shown once.

    Args:
        artefact: a file, a Zarr group or a chunk file of one.
        traces: the records.
        told: records that were already visited.

    """
    told = set() if told is None else told
    path = folder_of(plain(artefact))
    made = traces.maker(path)
    if made is None:
        return Cause(path, "given" if path.exists() else "lost")
    if made.record in told:
        return Cause(path, "above")
    told.add(made.record)
    content = made.content
    facts = {name: content.get(name) for name in ("stage", "version", "settings", "commit", "start", "end")}
    facts |= {"record": str(made.record), "facts": content.get("facts", {})}
    causes = [explain(source, traces, told) for source in made.inputs]
    if made.stage in SEALED_BY.values():
        causes += [explain(job.artefact, traces, told) for job in traces.jobs_of(made)]
    causes += _photos(made, traces)
    return Cause(path, "made", facts, causes)


def _photos(made: Made, traces: Traces) -> list[Cause]:
    """Return the folder of photos that a manifest lists, made by a download where one fetched them."""
    facts, dataset = made.content.get("facts", {}), made.content.get("settings", {}).get("dataset", {})
    if made.stage != "manifest" or dataset.get("kind") == "ids":
        return []
    counts = {name: facts[name] for name in ("train", "test", "skipped") if name in facts}
    return [
        Cause(Path(facts.get("root") or "."), "photos", counts, list(_downloads(made, dataset.get("root"), traces)))
    ]


def _downloads(manifest: Made, root: str | None, traces: Traces) -> Iterator[Cause]:
    """Find the download of a manifest's photos, in whichever run's folder; a copy that was there is none."""
    for record in sorted(manifest.record.parent.parent.glob("*/download.json")):
        for made in traces.of_folder(record.parent):
            same = made.content.get("settings", {}).get("dataset", {}).get("root") == root
            if made.record == record and same and made.content.get("facts", {}).get("downloaded"):
                facts = {
                    name: made.content.get(name) for name in ("stage", "version", "settings", "start", "end", "facts")
                }
                yield Cause(record, "made", {**facts, "record": str(record)})


def lines(cause: Cause, show: Any = str, first: str = "", rest: str = "") -> Iterator[str]:  # noqa: ANN401
    """Draw the tree.

    Args:
        cause: its top.
        show: how a path is printed.
        first: what stands before the top's line.
        rest: what stands before the lines below it.

    """
    made = f": {cause.facts['stage']} v{cause.facts['version']}" if cause.kind == "made" else _other(cause)
    yield f"{first}{show(cause.path)}{made}"
    below = list(_merged(cause.causes))
    told = _settings(cause)
    if told:
        yield f"{rest}{'|  ' if below else '   '}{told}"
    for number, (source, alike) in enumerate(below):
        last = number == len(below) - 1
        branch = list(lines(source, show, f"{rest}{'`- ' if last else '|- '}", f"{rest}{'   ' if last else '|  '}"))
        if alike:
            branch[0] += f" (and {alike} more jobs with the same settings)"
        yield from branch


def _other(cause: Cause) -> str:
    if cause.kind == "photos":
        counts = ", ".join(f"{count} {name}" for name, count in cause.facts.items())
        return f": photos ({counts})"
    return {"given": ": given, no stage made it", "above": ": see above", "lost": ": lost, and without a record"}[
        cause.kind
    ]


def _merged(causes: list[Cause]) -> Iterator[tuple[Cause, int]]:
    """Draw the jobs of shards with the same settings as one; give how many more there are."""
    jobs: dict[str, list[Cause]] = {}
    for cause in causes:
        if cause.facts.get("stage") in SEALED_BY:
            key = json.dumps([cause.facts["stage"], cause.facts["version"], cause.facts["settings"]], sort_keys=True)
            jobs.setdefault(key, []).append(cause)
        else:
            yield cause, 0
    for alike in jobs.values():
        yield alike[0], len(alike) - 1


def _settings(cause: Cause) -> str:
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
