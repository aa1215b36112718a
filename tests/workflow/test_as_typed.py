"""Commands as people type them: no environment activated, any working directory, paths with spaces."""

import copy
import os

import pytest
from conftest import SETTINGS, clone, typed

pytestmark = pytest.mark.workflow

SNAKEMAKE = ".venv/bin/snakemake"


def settings(**changes):
    chosen = copy.deepcopy(SETTINGS) | changes
    chosen["dataset"] |= {"truth": None, "shard_size": 16}
    return chosen


@pytest.fixture(scope="module")
def cloned(tmp_path_factory):
    return clone(tmp_path_factory.mktemp("typed") / "my $HOME 'clone'", settings(student={"kind": "none"}))


def test_another_cutsew_first_on_the_path_is_not_run(cloned):
    wrong = cloned / "bin" / "cutsew"
    wrong.parent.mkdir()
    wrong.write_text("#!/bin/sh\necho the wrong one >&2\nexit 3\n")
    wrong.chmod(0o755)
    (cloned / "random.py").write_text("raise SystemExit('not the module of that name')\n")
    done = typed(cloned, SNAKEMAKE, "--cores", "2", path=f"{wrong.parent}:{os.defpath}")
    assert done.returncode == 0, done.stderr
    assert (cloned / "results" / "tiny" / "default" / "report.html").exists()
    done = typed(cloned, SNAKEMAKE, "--cores", "2")
    assert done.returncode == 0 and "Nothing to be done" in done.stderr, done.stderr


CONDA = """#!/bin/sh
case "$*" in
  "info --json") echo '{"conda_prefix": "HOME", "platform": "linux-64"}' ;;
  --version) echo 'conda 25.1.0' ;;
  *--get*) echo '{"get": {"channel_priority": "strict"}}' ;;
  *) while [ $# -gt 0 ]; do [ "$1" != --prefix ] || mkdir -p "$2/conda-meta"; shift; done ;;
esac
"""


def test_with_conda_the_cutsew_of_its_environment_is_run(cloned, tmp_path):
    scripts = {
        "bin/conda": CONDA.replace("HOME", str(tmp_path)),
        "bin/activate": f'PATH="{tmp_path}/environment:$PATH"\n',
        "environment/cutsew": f'#!/bin/sh\necho "$*" >"{tmp_path}/asked"\nexit 3\n',
    }
    for name, text in scripts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    target = "results/tiny/default/images.parquet"
    done = typed(
        cloned, SNAKEMAKE, "--cores", "1", "-f", target, "--sdm", "conda", path=f"{tmp_path / 'bin'}:{os.defpath}"
    )
    assert done.returncode == 1
    assert (tmp_path / "asked").exists(), done.stderr
    assert "manifest results/tiny/default/images.parquet" in (tmp_path / "asked").read_text()
