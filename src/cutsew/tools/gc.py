"""Tool gc: what no configured run refers to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from cutsew.artefacts.garbage import delete, garbage
from cutsew.config.sweep import add_runs, read_sweep, sweep_files, variants_of
from cutsew.config.yaml_file import read_yaml
from cutsew.errors import UserError
from cutsew.plan import Plan

BASE = Path("config/config.yaml")
"""What the Snakefile reads where no --configfile is given."""

SWEEPS = BASE.parent / "sweeps"


def gc(
    configfile: Annotated[
        list[Path] | None,
        typer.Option(help="Settings whose runs are kept; may be given several times. Default: config/config.yaml."),
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

    Every run of every config file that is given is kept. Give all of those whose results are still wanted. Runs of a
    sweep are kept where --sweep names it or its table stands in results/<dataset>/sweeps/. Only folders of the datasets
    that they name are looked into; sweeps/ and files that no stage writes are left alone, links are not followed.
    """
    plans = [plan for file in configfile or [BASE] for plan in _plans(_read(file), sweep or [])]
    found = garbage(plans, Path("results"))
    for item in found:
        typer.echo(f"{_size(item.bytes):>10}  {item.path}  ({item.why})")
    total = _size(sum(item.bytes for item in found))
    if not found:
        typer.echo("nothing to delete: a configured run refers to all there is")
    elif not yes:
        typer.echo(f"{total:>10}  in {len(found)} places; nothing was deleted, --yes deletes them")
    else:
        for item in tqdm(found, desc="gc", unit="place"):
            delete(item, Path("results"))
        typer.echo(f"{total:>10}  in {len(found)} places deleted")


def _plans(raw: dict[str, Any], sweeps: list[str]) -> Iterator[Plan]:
    """Plan a config's own runs, and those together with each sweep's as the workflow does."""
    raw = dict(raw)
    named = [str(raw.pop("sweep"))] if "sweep" in raw else []
    plan = Plan(raw)
    yield plan
    files = {file for name in (*sweeps, *named) for file in sweep_files(name, SWEEPS)}
    tables = Path("results", plan.config.dataset.name, "sweeps").glob("*/table.csv")
    files |= {file for table in tables for file in SWEEPS.rglob(f"{table.parent.name}.yaml")}
    for file in sorted(files):
        variants = variants_of(read_sweep(file), raw, str(file))
        yield Plan(add_runs(raw, {variant.run: variant.changes for variant in variants}, str(file)))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such config file; run in the folder that holds config/ and results/")
    raw = read_yaml(path, "a config file")
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds no settings; name a config file")
    return raw


def _size(count: int) -> str:
    """Word a number of bytes."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
