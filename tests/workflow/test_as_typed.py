"""Commands as people type them: no environment activated, any working directory, paths with spaces."""

import copy
import os
import shutil

import pytest
from workflow_run import ROOT, SETTINGS, clone, typed

from cutsew.config import override

pytestmark = pytest.mark.workflow

SNAKEMAKE = ".venv/bin/snakemake"


def settings(**changes):
    chosen = copy.deepcopy(SETTINGS) | changes
    chosen["dataset"] |= {"truth": None, "shard_size": 16}
    return chosen


@pytest.fixture(scope="module")
def cloned(tmp_path_factory):
    return clone(tmp_path_factory.mktemp("typed") / "my $HOME 'clone'", override(settings(), {"student.kind": "none"}))


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


MODULE = """
from cutsew.pipeline.snakemake_call import checked_config


configfile: checked_config("mine.yaml")


module cutsew:
    snakefile:
        "{snakefile}"
    config:
        config
    prefix:
        "sub"


use rule * from cutsew as c_*


onstart:
    cutsew.onstart()
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A workflow of one's own that uses this one below a prefix; its images, truth and corrections lie next to it."""
    folder = tmp_path_factory.mktemp("module") / "a workflow"
    chosen = settings(labels={"overrides": "audit.csv"})
    chosen["dataset"]["truth"] = "truth.csv"
    clone(folder, chosen)
    for name in ("profiles", "slurm"):
        (folder / name).unlink()
    (folder / "config" / "config.yaml").rename(folder / "mine.yaml")
    (folder / "truth.csv").write_text("path,labels\n0.jpg,cat\nheld-out/1.jpg,dog;bus\n3.jpg,cat\nheld-out/2.jpg,cat\n")
    (folder / "audit.csv").write_text("image,class,present,by,at\n3.jpg,dog,1,Ada,2026-01-02T03:04:05Z\n")
    (folder / "Snakefile").write_text(MODULE.format(snakefile=ROOT / "workflow" / "Snakefile"))
    return folder


def test_as_a_module_below_a_prefix(module):
    done = typed(module, SNAKEMAKE, "--cores", "2", "c_all")
    assert done.returncode == 0, done.stderr
    assert not (module / "results").exists()
    run = module / "sub" / "results" / "tiny" / "default"
    assert (run / "report.html").exists() and (run / "metrics.csv").exists()
    assert (module / "sub" / "results" / "tiny" / "features").is_dir()
    done = typed(module, SNAKEMAKE, "--cores", "2", "c_all", "--rerun-triggers", "mtime", "params", "input")
    assert done.returncode == 0 and "Nothing to be done" in done.stderr, done.stdout + done.stderr


def test_a_damaged_config_file_of_a_module_is_refused_in_one_line(module, tmp_path):
    (tmp_path / "mine.yaml").write_text("classes: [cat, dog]\nfuse: {\n")
    done = typed(module, SNAKEMAKE, "-s", module / "Snakefile", "--directory", tmp_path, "-n", "c_all")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("cutsew: mine.yaml, line 3: not YAML")


SHORT = ["download", "sweep_table"]
SMALL = ["truth", "seal", "seal_tagclip", "targets", "override", "select", "reference_labels"]
SMALL += ["thresholds", "labels_table", "evaluate", "report"]


@pytest.mark.parametrize("large", [False, True])
def test_short_rules_of_a_module_run_where_snakemake_runs(module, tmp_path, large):
    """Those that hold the labels of all images only where there are few images and classes."""
    text = (module / "Snakefile").read_text()
    if large:  # thousands of images and classes would take too long here
        text = text.replace(
            "module cutsew:", "from cutsew.pipeline import sizing\n\nsizing.LOCAL_MB = 0\n\n\nmodule cutsew:"
        )
    file = tmp_path / "Snakefile"
    file.write_text(text + "\n\nprint('LOCAL', *sorted(workflow._localrules))\n")
    done = typed(module, SNAKEMAKE, "-s", file, "--list-rules")
    assert done.returncode == 0, done.stderr
    local = done.stdout.partition("LOCAL ")[2].splitlines()[0].split()
    assert local == sorted(f"c_{rule}" for rule in SHORT + (SMALL if not large else []))


def test_from_another_directory(cloned, tmp_path):
    """Results, images and config/config.yaml belong to the working directory, the rules to the clone."""
    elsewhere = tmp_path / "else where"
    (elsewhere / "config").mkdir(parents=True)
    shutil.copy(cloned / "config" / "config.yaml", elsewhere / "config")
    shutil.copytree(cloned / "images", elsewhere / "images")
    target = "results/tiny/default/images.parquet"
    done = typed(elsewhere, cloned / SNAKEMAKE, "-s", cloned / "workflow" / "Snakefile", "--cores", "1", target)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / target).exists()
    (elsewhere / target).unlink()
    done = typed(cloned, SNAKEMAKE, "--cores", "1", "--directory", elsewhere, target)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / target).exists()


def test_a_directory_without_a_config_file_runs_the_demo(cloned, tmp_path):
    done = typed(tmp_path, cloned / SNAKEMAKE, "-s", ROOT / "workflow" / "Snakefile", "-n")
    assert done.returncode == 0 and "results/demo/default/report.html" in done.stdout, done.stderr


def test_a_low_limit_of_open_files_is_raised_or_refused_in_one_line(cloned):
    run = ["bash", "-c", "ulimit $0 32 && exec .venv/bin/snakemake -n"]
    done = typed(cloned, *run, "-n")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == (
        "cutsew: this shell allows a process only 32 open files; type ulimit -n 1024, or open a new shell"
    )
    assert typed(cloned, *run, "-Sn").returncode == 0
