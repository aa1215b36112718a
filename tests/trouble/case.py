"""One input, and what the documentation says becomes of it."""

import re
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cutsew.errors import MOST_LINES, UserError

REFUSED, SKIPPED, ACCEPTED = "refused", "skipped", "accepted"
OUT = "out"
"""Folder, in a case's own, that stages write to."""

SECONDS = 20
LONGEST = 700
"""Characters of a message."""


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        kind: images, annotations, scores, configs, places, artifacts, ...
        name: what is wrong or odd.
        outcome: REFUSED in one line; SKIPPED and listed; ACCEPTED with an effect.
        says: pattern found in the line, in the listed reason or in the effect; of a refusal it holds the culprit.
        act: makes the input in the folder it is given and has it read; returns the effect, or `skipped: <reason>`.

    """

    kind: str
    name: str
    outcome: str
    says: str
    act: Callable[[Path], object]


class TookTooLong(BaseException):
    """No Exception, so that no reader takes it for damage."""


@contextmanager
def time_boxed(seconds: int = SECONDS):
    def stop(*_):
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fate(case: Case, folder: Path) -> tuple[str, str]:
    """Run a case; return what became of it and in which words. Anything but a UserError is a traceback and raised."""
    try:
        with time_boxed():
            effect = case.act(folder)
    except UserError as error:
        return REFUSED, str(error)
    text = str(effect)
    return (SKIPPED, text.removeprefix("skipped: ")) if text.startswith("skipped: ") else (ACCEPTED, text)


def complaints(case: Case, folder: Path) -> list[str]:
    """Say in which ways a case did not end as documented; nothing where it did."""
    outcome, text = fate(case, folder)
    result = []
    if outcome != case.outcome:
        result.append(f"{outcome} instead of {case.outcome}: {text}")
    elif not re.search(case.says, text):
        result.append(f"{case.says!r} is not in: {text}")
    if outcome == REFUSED:
        lines = text.split("\n")
        if len(lines) > (MOST_LINES + 1 if case.kind in ("configs", "places") else 1):
            result.append(f"more lines than errors may have: {text!r}")
        if not all(line.isprintable() and 0 < len(line) <= LONGEST for line in lines):
            result.append(f"not a plain line: {text!r}")
        if re.search(r"Traceback|Error:|<class '|object at 0x|\bpydantic\b", text):
            result.append(f"the program's own words: {text}")
        left = [path for path in folder.joinpath(OUT).rglob("*") if path.is_file() and path.parent.suffix != ".cache"]
        if left:
            result.append(f"half-written: {left}")
    result += [f"a draft is left: {path}" for path in folder.rglob("*.draft")]
    return result


def seconds_of(case: Case, folder: Path) -> float:
    start = time.perf_counter()
    fate(case, folder)
    return time.perf_counter() - start
