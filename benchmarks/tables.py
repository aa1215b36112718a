"""What a benchmark found: its table, and a JSON file with machine, versions, all runs, medians and spread.

`python benchmarks/tables.py` writes the tables of benchmarks/results into docs/reference/benchmarks.md, between
`<!-- results: NAME -->` and `<!-- end -->`.
"""

import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from common import RESULTS, ROOT, Rounds, Run, Thing
from cutsew.provenance.record import versions

PACKAGES = ("cutsew", "numpy", "pandas", "pillow", "snakemake", "timm", "torch", "torchvision", "open_clip_torch")
PACKAGES += ("zarr", "numcodecs", "onnxruntime", "openvino")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Of a processor, for its matrix products."""
Measure = Literal["wall", "cpu", "rss"]


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, its runs, and the bar that it is held against, in words."""

    name: str
    runs: Sequence[Run]
    bar: str = ""
    units: float | None = None
    unit: str = "unit"


@dataclass(frozen=True)
class Ratio:
    """A ratio of two things, from each round, and the bar that it is held against, in words."""

    name: str
    values: Sequence[float]
    of: str
    bar: str = ""


@dataclass(frozen=True)
class Measured:
    """One figure that stands for itself: a rate, a share, an amount of memory, and its bar in words."""

    name: str
    value: float
    unit: str
    bar: str = ""


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        name: of the JSON file.
        title: above the table.
        rows, ratios: measured here.
        conditions: sizes and settings of the measurement.
        facts: whatever else was found, such as a difference in pixels.

    """

    name: str
    title: str
    rows: Sequence[Row]
    ratios: Sequence[Ratio] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def row(thing: Thing, rounds: Rounds, bar: str = "") -> Row:
    """Make a thing's line of the table."""
    return Row(thing.name, rounds[thing.name], bar, thing.units, thing.unit)


def total(name: str, parts: Sequence[str], rounds: Rounds, bar: str = "") -> Row:
    """Sum things that follow one another: their times in each round, and the largest of their memories."""
    result = [
        Run(sum(r.wall for r in of), sum(r.cpu for r in of), max(r.rss for r in of)) for of in _rounds(parts, rounds)
    ]
    return Row(name, result, bar)


def ratio(name: str, over: str, under: str, rounds: Rounds, of: Measure = "cpu", bar: str = "") -> Ratio:
    """Divide one thing's measure by another's, round by round."""
    values = [getattr(a, of) / max(getattr(b, of), 1e-9) for a, b in _rounds([over, under], rounds)]
    return Ratio(name, values, of, bar)


def publish(report: Report, out: Path = RESULTS, tiny: bool = False) -> None:
    """Print the table, and write the JSON file; not into the project's own results where the size is tiny."""
    content = as_json(report)
    print(f"\n{report.title}\n{markdown(content)}\n{in_words(content['machine'])}")
    if tiny and out == RESULTS:
        return
    out.mkdir(parents=True, exist_ok=True)
    out.joinpath(f"{report.name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def publish_measured(
    name: str,
    title: str,
    rows: Sequence[Measured],
    conditions: Mapping[str, Any],
    out: Path = RESULTS,
    tiny: bool = False,
) -> None:
    """Print a table of single figures and write its JSON file, as `publish` does for runs."""
    content = {"benchmark": name, "title": title, "measured": [asdict(row) for row in rows]}
    content |= {"conditions": dict(conditions), "facts": {}} | _circumstances()
    print(f"\n{title}\n{markdown(content)}\n{in_words(content['machine'])}")
    if tiny and out == RESULTS:
        return
    out.mkdir(parents=True, exist_ok=True)
    out.joinpath(f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def as_json(report: Report) -> dict[str, Any]:
    """Lay out a report as plain values: every run, medians and spread, machine, versions."""
    return {
        "benchmark": report.name,
        "title": report.title,
        "rows": [_row_as_json(row) for row in report.rows],
        "ratios": [asdict(ratio) | {"value": _spread(ratio.values)} for ratio in report.ratios],
        "conditions": dict(report.conditions),
        "facts": dict(report.facts),
        **_circumstances(),
    }


def _circumstances() -> dict[str, Any]:
    return {
        "machine": machine(),
        "packages": versions(PACKAGES),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    spreads = {name: _spread([getattr(run, name) for run in row.runs]) for name in Run._fields}
    return {"name": row.name, "bar": row.bar, "units": row.units, "unit": row.unit, **spreads} | {
        "runs": [run._asdict() for run in row.runs]
    }


def markdown(content: Mapping[str, Any]) -> str:
    """Set the table of a JSON file: medians, with the lowest and highest in brackets; or its single figures."""
    if "measured" in content:
        lines = [f"| {row['name']} | {row['value']:.4g} {row['unit']} | {row['bar']} |" for row in content["measured"]]
        return "\n".join(["| | | bar |", "| --- | --- | --- |", *lines])
    rows, ratios = content["rows"], content["ratios"]
    per = any(row["units"] for row in rows)
    bars = any(row["bar"] for row in rows)
    head = ["", "wall", "CPU", *(["CPU per unit"] if per else []), "peak memory", *(["bar"] if bars else [])]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        unit = f"{_seconds(row['cpu']['median'] / row['units'])} / {row['unit']}" if row["units"] else ""
        times = [_between(row["wall"], _seconds), _between(row["cpu"], _seconds), *([unit] if per else [])]
        lines.append([row["name"], *times, f"{row['rss']['median'] / 2**20:.0f} MiB", *([row["bar"]] if bars else [])])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if ratios:
        text += "\n\n| ratio | of | | bar |\n| --- | --- | --- | --- |"
        for one in ratios:
            of = {"wall": "wall time", "cpu": "CPU time", "rss": "memory"}[one["of"]]
            text += f"\n| {one['name']} | {of} | {_between(one['value'], lambda x: f'{x:.3g}')} | {one['bar']} |"
    return text


def machine() -> dict[str, Any]:
    """Describe this machine, without its name."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.processor(),
        "instructions": [name for name in INSTRUCTIONS if re.search(rf"\b{name}\b", text)],
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
    }


def in_words(machine: Mapping[str, Any]) -> str:
    """Describe a machine in one line."""
    gpu = f", {machine['gpu']}" if machine["gpu"] else ", no GPU"
    busy = f", shared with other work (load {machine['load']:.0f})" if machine["load"] > machine["cores"] + 1 else ""
    can = ", ".join([machine["cpu"], *machine["instructions"]])
    return f"{machine['cores']} cores ({can}), {machine['memory_gib']} GiB of memory{gpu}{busy}"


def fill_docs(page: Path = ROOT / "docs" / "reference" / "benchmarks.md", results: Path = RESULTS) -> None:
    """Write the tables of all results into the page of benchmarks, between their marks."""
    text = page.read_text(encoding="utf-8")
    for path in sorted(results.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        table = f"{markdown(content)}\n\n{in_words(content['machine'])}{_runs(content)}.\n"
        mark = re.compile(rf"(<!-- results: {re.escape(path.stem)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = mark.sub(lambda result, table=table: f"{result[1]}\n{table}\n{result[2]}", text)
    page.write_text(text, encoding="utf-8")


def _runs(content: Mapping[str, Any]) -> str:
    return f"; {len(content['rows'][0]['runs'])} runs" if "rows" in content else ""


def _rounds(names: Sequence[str], rounds: Rounds) -> Iterator[tuple[Run, ...]]:
    return zip(*(rounds[name] for name in names), strict=True)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _between(spread: Mapping[str, float], say: Callable[[float], str]) -> str:
    return f"{say(spread['median'])} ({say(spread['low'])} to {say(spread['high'])})"


def _seconds(seconds: float) -> str:
    scale, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    return f"{seconds * scale:.3g} {unit}" if seconds * scale < 100 else f"{seconds * scale:.0f} {unit}"


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else None


if __name__ == "__main__":
    fill_docs()
