"""What every benchmark uses: wall time, CPU time and memory of things that are measured side by side.

    THINGS = [Thing("plain", plain, units=21, unit="view"), Thing("ours", ours, units=21, unit="view")]
    rounds = measure(THINGS, repeats)  # in turns: plain, ours, plain, ours, ...
    rows = [row(thing, rounds) for thing in THINGS]
    report = Report("views", "Views", rows, [ratio("ours / plain", "ours", "plain", rounds)])
    publish(report, out, tiny)

Nothing here asserts a time.
"""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
REPEATS = 5
COMMAND_WATCH, FUNCTION_WATCH = 0.05, 0.25
"""Seconds between two looks at the memory of a command, and of a function, whose processor a look takes away."""

Tiny = Annotated[bool, typer.Option("--tiny", help="A minimal size, to see that it runs; writes no results.")]
Repeats = Annotated[int, typer.Option(min=1, help="Rounds; what is compared takes turns in each.")]
Out = Annotated[Path, typer.Option(help="Folder of the JSON file.")]


class Run(NamedTuple):
    """One run: wall seconds, CPU seconds (user and system) and peak resident bytes, each of the process tree.

    Memory that processes share is counted once for each of them.
    """

    wall: float
    cpu: float
    rss: int


Rounds = Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class Thing:
    """Something to measure.

    Attributes:
        name: in the table.
        run: a function, called in this process; or the words of a command, which is started.
        before: called ahead of every run, outside the measurement.
        units, unit: how many of what one run does, for a column of CPU time per unit.
        environment: variables added for a command.

    """

    name: str
    run: Callable[[], object] | Sequence[str | Path]
    before: Callable[[], object] | None = None
    units: float | None = None
    unit: str = "unit"
    environment: Mapping[str, str] = field(default_factory=dict)


def measure(things: Sequence[Thing], repeats: int = REPEATS, warm: int = 1) -> dict[str, list[Run]]:
    """Run things in turns, `repeats` times each after `warm` rounds that do not count."""
    rounds: dict[str, list[Run]] = {thing.name: [] for thing in things}
    for number in range(-warm, repeats):
        for thing in things:
            if thing.before is not None:
                thing.before()
            run = run_once(thing)
            if number >= 0:
                rounds[thing.name].append(run)
                print(f"{thing.name}, {number + 1} of {repeats}: {run.wall:.3g} s", file=sys.stderr)
    return rounds


def run_once(thing: Thing) -> Run:
    """Run a thing once.

    Raises:
        RuntimeError: its command failed; the message ends with what it wrote.

    """
    return _called(thing.run) if callable(thing.run) else _commanded(thing.run, thing.environment)


def _called(function: Callable[[], object]) -> Run:
    with _memory_of(psutil.Process(), FUNCTION_WATCH) as peak:
        before, start = _cpu(), time.perf_counter()
        function()
        wall, cpu = time.perf_counter() - start, _cpu() - before
    return Run(wall, cpu, peak[0])


def _commanded(words: Sequence[str | Path], environment: Mapping[str, str]) -> Run:
    start, before = time.perf_counter(), _cpu(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(
        [str(word) for word in words],
        env=os.environ | dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        with _memory_of(psutil.Process(process.pid), COMMAND_WATCH) as peak:
            stated, _ = process.communicate()
        wall = time.perf_counter() - start
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit status {process.returncode}\n{stated[-2000:]}")
    return Run(wall, _cpu(resource.RUSAGE_CHILDREN) - before, peak[0])


@contextmanager
def _memory_of(process: psutil.Process, seconds: float) -> Iterator[list[int]]:
    """Watch the resident memory of a process and all below it; the list that this gives holds the peak."""
    peak, over = [_resident(process)], threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            peak[0] = max(peak[0], _resident(process))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
        peak[0] = max(peak[0], _resident(process))


def _resident(process: psutil.Process) -> int:
    try:
        tree = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(filter(None, map(_resident_alone, tree)))


def _resident_alone(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _cpu(*whose: int) -> float:
    """Sum user and system seconds; without arguments of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in whose or (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
