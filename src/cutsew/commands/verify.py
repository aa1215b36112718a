"""Tool verify: checks every file of a run's folder against its recorded digest."""

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from cutsew.errors import UserError
from cutsew.provenance.lineage import ProvenanceIndex, StoredRecord, plain, shown
from cutsew.provenance.verification import MOST_TARGETS, Verifier, rebuild, transitive_records


def verify(folder: Annotated[Path, typer.Argument(help="A run's folder, results/<dataset>/<run>.")]) -> None:
    """Check that a run's artifacts, and everything they were made from, are unchanged.

    Recomputes every file's digest and lists files that are damaged, missing, stale or from elsewhere, each with the
    command that rebuilds it. Exits with status 1 if there are any.
    """
    traces = ProvenanceIndex()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name a run's, results/<dataset>/<run>")
    records = transitive_records(plain(folder), traces)
    if not records and not traces.bad:
        raise UserError(f"{folder}: has no records; name a run's folder, results/<dataset>/<run>")
    with tqdm(total=_count(records), desc="verify", unit="file") as bar:
        verifier = Verifier(traces, lambda _: bar.update())
        findings = verifier.findings(folder)
    for finding in findings:
        advice = "" if finding.target is not None else "; put it back"
        typer.echo(f"{shown(finding.path)}: {finding.wrong}{advice}")
    command = rebuild(findings, plain(folder), records)
    if command is not None:
        more = sum(finding.target is not None for finding in findings) - MOST_TARGETS
        then = f" ({more} more remain after it; run verify again)" if more > 0 else ""
        typer.echo(f"to rebuild{then}:\n{command}")
    if findings:
        raise typer.Exit(1)
    typer.echo(f"{folder}: all files match their records: {len(records)} records, {verifier.checked} files")


def _count(records: list[StoredRecord]) -> int:
    """Count the files that are going to be digested, for the progress bar alone."""
    files: set[Path] = set()
    for path in {path for record in records for path in record.outputs}:
        files.update(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else files.add(path)
    return len(files)
