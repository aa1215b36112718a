"""Tool gc: what no configured run refers to."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from tqdm import tqdm

from cutsew.artefacts.garbage import delete, garbage
from cutsew.errors import UserError
from cutsew.plan import Plan

BASE = Path("config/config.yaml")
"""What the Snakefile reads before it reads a --configfile."""


def gc(
    configfile: Annotated[
        list[Path] | None,
        typer.Option(help="Settings whose runs are kept; may be given several times. Default: config/config.yaml."),
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed.")] = False,
) -> None:
    """List results that no configured run refers to, and delete them with --yes.

    Every run of every config file that is given is kept, read as Snakemake reads it: over config/config.yaml. Give all
    of those whose results are still wanted. Only folders of the datasets that they name are looked into; sweeps/ and
    files that no stage writes are left alone, links are not followed.
    """
    plans = [Plan(raw) for raw in _configs(configfile or [BASE])]
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


def _configs(files: list[Path]) -> list[dict[str, Any]]:
    """Read each config file over the base one, and all of them over one another as Snakemake merges several."""
    raws = [_read(path) for path in files]
    base = _read(BASE) if BASE.is_file() else {}
    configs = [merged(base, raw) for raw in raws]
    if len(raws) > 1:
        everything = base
        for raw in raws:
            everything = merged(everything, raw)
        configs.append(everything)
    return configs


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such config file; run in the folder that holds config/ and results/")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}); mend it") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds no settings; name a config file")
    return raw


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings with those of another file over them, as Snakemake merges config files."""
    result = dict(base)
    for name, value in over.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _size(count: int) -> str:
    """Word a number of bytes."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
