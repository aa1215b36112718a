"""Run the corpus and print a table of kinds and outcomes; with --all every case. To be run in tests/."""

import contextlib
import io
import logging
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from trouble.case import ACCEPTED, REFUSED, SKIPPED, complaints
from trouble.corpus import CASES


def main() -> int:
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        for number, case in enumerate(CASES):
            folder = Path(place) / str(number)
            folder.mkdir()
            with contextlib.redirect_stdout(io.StringIO()):
                result = complaints(case, folder)
            wrong += [f"{case.kind}: {case.name!a}: {text}" for text in result]
            counts[case.kind, "wrong" if result else case.outcome] += 1
            if "--all" in sys.argv:
                print(f"| {case.kind} | {case.name!a} | {case.outcome} | `{case.says}` |")
    outcomes = (REFUSED, SKIPPED, ACCEPTED, "wrong")
    print(
        f"| input | {' | '.join(('one line', 'listed skip', 'stated effect', 'not as documented'))} |\n|---|---|---|---|---|"
    )
    for kind in dict.fromkeys(case.kind for case in CASES):
        print(f"| {kind} | {' | '.join(str(counts[kind, outcome]) for outcome in outcomes)} |")
    print(f"{len(CASES)} inputs in {time.perf_counter() - start:.0f} s", *wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
