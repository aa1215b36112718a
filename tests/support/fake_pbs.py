"""A stand-in for PBS on one machine: `qsub`, `qstat` and `qdel`, whose jobs start as on a node, with nothing exported.

Two jobs run at a time. It keeps what each submission asked for, so that tests can look at it.
"""

import json
import os
import sys
from pathlib import Path

QSUB = """#!/bin/sh
# qsub OPTIONS... SCRIPT: start the script in an environment of its own and print its number.
cd {home}
number=$(( $(cat count 2>/dev/null || echo 0) + 1 ))
echo $number > count
printf '%s\\n' "$@" > $number.words
for script; do :; done
cp "$script" $number.sh
setsid env -i PATH=/usr/bin:/bin HOME={home} {variables} JOB=$number sh -c '
  echo $$ > $JOB.pid
  flock slot.$((JOB % 2)) {runs}
  echo $? > $JOB.draft; mv $JOB.draft $JOB.done
' > $number.log 2>&1 < /dev/null &
echo $number.fake
"""
QSTAT = """#!/bin/sh
# qstat -x -f NUMBER.fake
for job; do :; done
file={home}/${{job%.fake}}
[ -f "$file.words" ] || {{ echo "qstat: Unknown Job Id $job" >&2; exit 153; }}
echo "Job Id: $job"
if [ -f "$file.done" ]; then
  printf '    job_state = F\\n    Exit_status = %s\\n' "$(cat "$file.done")"
else
  echo "    job_state = R"
fi
"""
QDEL = """#!/bin/sh
for job; do kill -- -$(cat {home}/${{job%.fake}}.pid); done
"""


class FakePBS:
    """A folder with the programs and with what they keep.

    Args:
        home: the folder, which is made.
        runs: how a job's script is run, in the shell of the job.
        variables: environment variables that jobs have.

    """

    def __init__(self, home: Path, runs: str = "sh $JOB.sh", **variables: str) -> None:
        self.home = home
        self.binaries = home / "bin"
        self.binaries.mkdir(parents=True)
        words = " ".join(f"{name}='{value}'" for name, value in variables.items())
        for name, text in (("qsub", QSUB), ("qstat", QSTAT), ("qdel", QDEL)):
            program = self.binaries / name
            program.write_text(text.format(home=home, runs=runs, variables=words))
            program.chmod(0o755)

    @property
    def requests(self) -> list[list[str]]:
        """What each job was submitted with, in order, but for the script."""
        files = sorted(self.home.glob("*.words"), key=lambda path: int(path.stem))
        return [path.read_text().splitlines()[:-1] for path in files]

    def logs(self) -> str:
        """Return what all jobs printed."""
        return "\n".join(path.read_text() for path in sorted(self.home.glob("*.log")))


TRACE = "CUTSEW_TRACE"
"""Environment variable: the folder into which each Python process writes the files that it looked at."""


def write_tracer(folder: Path) -> None:
    """Write a `sitecustomize.py` that runs this module's `trace` in each Python process that has it on its path."""
    folder.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).parent
    text = f"import sys\nsys.path.append({str(here)!r})\nimport fake_pbs\nfake_pbs.trace()\n"
    (folder / "sitecustomize.py").write_text(text)


def trace() -> None:
    """Append each path that this process lists, opens or asks the status of to a file of its own."""
    folder = os.environ.get(TRACE)
    if folder is None:
        return
    log = open(Path(folder, f"{os.getpid()}.jsonl"), "a")  # noqa: SIM115, PTH123  # until the process ends

    def note(call: str, path: object) -> None:
        if isinstance(path, (str, os.PathLike)):
            log.write(json.dumps([os.getpid(), call, os.fspath(path), sys.argv[:6]]) + "\n")
            log.flush()

    def audited(event: str, words: tuple[object, ...]) -> None:
        if event in ("open", "os.scandir", "os.listdir") and words and words[0] != log.name:
            note(event, words[0])

    def noting(function):
        def of_path(path, *words, **options):
            note(function.__name__, path)
            return function(path, *words, **options)

        return of_path

    os.stat, os.lstat = noting(os.stat), noting(os.lstat)  # not among the events that are audited
    sys.addaudithook(audited)
