"""Tool gc: what no configured run refers to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from cutsew.config.sweep import add_runs, read_sweep, sweep_files, variants_of
from cutsew.config.yaml_file import read_config
from cutsew.errors import UserError
from cutsew.pipeline.plan import Plan
from cutsew.provenance.unreferenced import delete, find_unreferenced, made_with
from cutsew.runtime.processes import DEFAULT_CONFIGFILE

BASE = Path(DEFAULT_CONFIGFILE)

CONFIGFILE = Path("config.yaml")
"""What `cutsew init` writes."""

SWEEPS = BASE.parent / "sweeps"


def gc(
    configfile: Annotated[
        list[Path] | None,
        typer.Option(
            help="Settings whose runs are kept; may be given several times. Default: config/config.yaml, "
            "else config.yaml."
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="A sweep whose runs are kept too, by its name in config/sweeps/ or its file; may be repeated."
        ),
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed.")] = False,
) -> None:
    """List results that no configured run refers to, and delete them with --yes.

    Keeps every run of the given config files, so give all files whose results you still want. Keeps the runs of a
    sweep if --sweep names it or its table is in results/<dataset>/sweeps/. Reports, but never deletes, datasets that no
    given config file covers, runs made with another config file that still exists, sweeps/, and files that no stage
    writes. Does not follow links.
    """
    files = configfile or [CONFIGFILE if CONFIGFILE.is_file() else BASE]  # as cutsew run selects
    read = set(files)
    plans = [plan for file in files for plan in _plans(_read(file), sweep or [], read)]
    unreferenced, unjudged = find_unreferenced(plans, Path("results"), read)
    for left in unjudged:
        typer.echo(f"left alone: {left.path}: {left.why}{_advice(left.path, read)}")
    for item in unreferenced:
        typer.echo(f"{_size(item.bytes):>10}  {item.path}  ({item.why})")
    total = _size(sum(item.bytes for item in unreferenced))
    if not unreferenced:
        rest = " else" if unjudged else ""
        typer.echo(f"nothing{rest} to delete: a configured run refers to all there is{rest}")
    elif not yes:
        typer.echo(f"{total:>10}  in {len(unreferenced)} places; nothing was deleted, --yes deletes them")
    else:
        for item in tqdm(unreferenced, desc="gc", unit="place"):
            delete(item, Path("results"))
        typer.echo(f"{total:>10}  in {len(unreferenced)} places deleted")


def _advice(path: Path, read: set[Path]) -> str:
    """Name a config file that covers a dataset's folder: one that its runs were made with, else one in config/."""
    if path.parent != Path("results"):
        return "; add it"
    here = Path.cwd().resolve()
    configs = {file for run in path.iterdir() if run.is_dir() for file in made_with(run)}
    shown_configs = [file.relative_to(here) if file.is_relative_to(here) else file for file in sorted(configs)]
    for file in [*shown_configs, *sorted(BASE.parent.glob("*.yaml"))]:
        try:
            named = _read(file).get("dataset", {}).get("name", "demo")
        except (UserError, AttributeError):
            continue
        if file not in read and named == path.name:
            return f"; add --configfile {file}"
    return "; add its --configfile"


def _plans(raw: dict[str, Any], sweeps: list[str], read: set[Path]) -> Iterator[Plan]:
    """Plan a config's own runs, and those together with each sweep's as the workflow does; add the sweeps to `read`."""
    raw = dict(raw)
    named = [str(raw.pop("sweep"))] if "sweep" in raw else []
    plan = Plan(raw)
    yield plan
    files = {file for name in (*sweeps, *named) for file in sweep_files(name, SWEEPS)}
    tables = Path("results", plan.config.dataset.name, "sweeps").glob("*/table.csv")
    files |= {file for table in tables for file in SWEEPS.rglob(f"{table.parent.name}.yaml")}
    read |= files
    for file in sorted(files):
        variants = variants_of(read_sweep(file), raw, str(file))
        yield Plan(add_runs(raw, {variant.run: variant.changes for variant in variants}, str(file)))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such config file; run in the folder that holds config/ and results/")
    return read_config(path)


def _size(count: int) -> str:
    """Word a number of bytes."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
