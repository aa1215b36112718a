"""The record next to each artifact, which says how it was made; and merging the records of a Zarr group's many jobs."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cutsew.errors import UserError
from cutsew.runtime.machine import package_version
from cutsew.runtime.processes import COMMAND
from cutsew.storage.atomic import write_text
from cutsew.storage.file_digests import file_digest
from cutsew.storage.manifest import SHARDS, read_shards
from cutsew.storage.tables import read_record, require_keys
from cutsew.storage.zarr_layout import folder_of

PACKAGES = ("cutsew", "torch", "open_clip_torch", "timm", "zarr", "numpy", "pandas", "pillow", "scikit-learn")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Record:
    """How an artifact is being made; made at a stage's start, written at its end.

    Attributes:
        stage: name of the stage.
        version: the stage's version.
        settings: of the stage.
        inputs: files that were read; digested when the record is written.
        facts: whatever else is worth keeping (device, weights' digest, counts).
        work: how much of it this job computed; the rest comes from caches.

    """

    stage: str
    version: int
    settings: Mapping[str, Any]
    inputs: list[Path] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    start: str = field(default_factory=_now)

    def write_beside(self, artifact: Path) -> None:
        """Write the record of one file or Zarr group as `<its name>.json` next to it."""
        folder = folder_of(artifact)
        self.write(folder.with_suffix(".json"), {folder.name: input_digest(folder)})

    def write(self, path: Path, outputs: Mapping[str, str]) -> None:
        """Write the record.

        Args:
            path: the `.json` next to the artifact.
            outputs: name of what was written (relative to the record's folder) -> digest of its content.

        """
        content = {
            "stage": self.stage,
            "version": self.version,
            "settings": self.settings,
            "inputs": {os.path.relpath(p, path.parent): input_digest(p) for p in self.inputs},
            "outputs": dict(outputs),
            "seals": {
                name: file_digest(path.parent / name / "zarr.json") for name in outputs if name.endswith(".zarr")
            },
            "listing": _listing(self.inputs),
            "facts": self.facts,
            "work": self.work,
            "packages": _packages(),
            "python": platform.python_version(),
            "commit": _commit(),
            "command": os.environ.get(COMMAND),
            "host": os.environ.get("SLURMD_NODENAME", platform.node()),
            "job": os.environ.get("SLURM_JOB_ID"),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "start": self.start,
            "end": _now(),
        }
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def input_digest(path: Path) -> str:
    """Digest of a file; of a sealed Zarr group (its folder or `zarr.json`), the content digest that the seal holds."""
    folder = folder_of(path)
    if folder.suffix == ".zarr":
        return str(read_record(folder / "zarr.json", "attributes", "digest"))
    return file_digest(path)


def listing_digests(manifest: Path) -> dict[str, str]:
    """Digest what shards.csv next to a manifest says: which images there are, in which split, and where.

    Stages take the manifest as it was then, so its bytes may change and they still stand: `digest`, `listed` or
    `placed` (see stages/manifest.py) is what counts.
    """
    table = manifest.with_name(SHARDS)
    if not table.is_file():
        return {}
    rows = read_shards(table)
    parts = ("digest", "listed", "placed")
    return {name: hashlib.sha256(" ".join(row[name] for row in rows).encode()).hexdigest() for name in parts}


def _listing(inputs: list[Path]) -> dict[str, str]:
    manifests = [path for path in inputs if path.name == "images.parquet"]
    return listing_digests(manifests[0]) if manifests else {}


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of the installed packages among them."""
    return {name: installed for name in packages if (installed := package_version(name)) is not None}


@cache
def _packages() -> dict[str, str]:
    return versions(PACKAGES)


@cache
def _commit() -> str | None:
    """Commit of the checkout that the package is imported from, None for an installed wheel."""
    folder = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return out.stdout.strip()


def require_consistent_records(
    records: Iterable[Path], names: Sequence[str], refusal: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """Read records of jobs that each wrote chunk files of one group.

    Args:
        records: their paths.
        names: facts that all must agree on.
        refusal: what is said of one that does not, behind its path.

    Returns:
        Digests of all chunk files as their writers recorded them, and the facts.

    Raises:
        UserError: a record is missing or damaged, or differs from those before it.

    """
    known: dict[str, str] = {}
    facts: dict[str, Any] = {}
    for path in records:
        content = read_record(path)
        known |= require_keys(content, path, "outputs")
        facts_of_record = {name: require_keys(content, path, "facts", name) for name in names}
        facts = facts or facts_of_record
        if facts_of_record != facts:
            raise UserError(f"{path}: {refusal}")
    return known, facts
