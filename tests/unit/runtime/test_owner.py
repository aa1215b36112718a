"""A command ends with the snakemake that started it, and worker processes with their command."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cutsew.runtime.processes import (
    COMMAND,
    OWNER,
    set_owner_process,
    settings_files,
    snakemake_command,
    snakemake_program,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")

SLEEP = "import time; from cutsew.runtime.processes import {0}; {0}(); print('ready', flush=True); time.sleep(60)"


def start(code, **kwargs):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **kwargs)


def ended(number, seconds=20):
    for _ in range(seconds * 50):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def owner(monkeypatch):
    sleeper = subprocess.Popen(["sleep", "60"])
    set_owner_process()
    monkeypatch.setenv(OWNER, os.environ.pop(OWNER).replace(str(os.getpid()), str(sleeper.pid)))
    yield sleeper
    sleeper.kill()
    sleeper.wait()


def test_a_command_is_killed_when_its_owner_ends(owner):
    command = start(SLEEP.format("exit_with_owner"))
    assert command.stdout.readline() == "ready\n"
    time.sleep(0.2)
    assert command.poll() is None
    owner.kill()
    owner.wait()
    assert command.wait(20) == -signal.SIGKILL


def test_a_command_does_not_start_without_its_owner(owner):
    owner.kill()
    owner.wait()
    command = start(SLEEP.format("exit_with_owner"))
    assert command.wait(20) == -signal.SIGKILL and command.stdout.read() == ""


@pytest.mark.parametrize("value", ["", "elsewhere pid:[1] 1"])
def test_without_an_owner_on_this_machine_a_command_goes_on(monkeypatch, value):
    monkeypatch.setenv(OWNER, value)
    command = start("from cutsew.runtime.processes import exit_with_owner; exit_with_owner(); print('done')")
    assert command.wait(20) == 0 and command.stdout.read() == "done\n"


def test_a_worker_ends_with_its_parent():
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP.format('end_with_parent')!r}], stdout=-1, text=True)\n"
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()"
    )
    parent = start(code)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert ended(child)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    tmp_path.joinpath("Snakefile").touch()
    return tmp_path


def test_the_snakemake_of_an_environment_that_is_not_activated_is_named_by_its_path(project, monkeypatch):
    assert snakemake_program() == "snakemake"
    other = project / "bin" / "snakemake"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(other.parent), prepend=os.pathsep)
    local_values = str(Path(sys.executable).with_name("snakemake"))
    assert snakemake_command(project / "Snakefile") == f"{local_values} --cores all"
    monkeypatch.chdir(sys.prefix)
    assert snakemake_program() == "bin/snakemake"


def test_the_command_names_what_is_not_found_by_itself_and_is_quoted(project):
    assert snakemake_command(project / "Snakefile") == "snakemake --cores all"
    command = snakemake_command("/else where/Snakefile", [project / "my config" / "a.yaml", "/b.yaml"])
    assert shlex.split(command) == [
        *("snakemake", "--cores", "all", "--snakefile", "/else where/Snakefile"),
        *("--configfile", "my config/a.yaml", "/b.yaml"),
    ]


def test_settings_of_the_command_line_are_kept_as_snakemake_reads_them(project):
    command = snakemake_command(project / "Snakefile", config={"fuse": {"alpha": 0.3}, "sweep": "alpha,x.yaml"})
    *_, fuse, sweep = shlex.split(command)
    assert yaml.safe_load(fuse.removeprefix("fuse=")) == {"alpha": 0.3} and sweep == "sweep=alpha,x.yaml"


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("snakemake --cores all", ["config/config.yaml"]),
        ("snakemake --cores all --configfile 'a b.yaml' c.yaml --config fuse={}", ["a b.yaml", "c.yaml"]),
        (
            "snakemake --cores all --config sweep=alpha,t/x.yaml",
            ["config/config.yaml", "config/sweeps/alpha.yaml", "t/x.yaml"],
        ),
    ],
)
def test_a_commands_files_of_settings_are_read_back(command, files):
    assert settings_files(command) == files


def test_jobs_on_nodes_keep_the_command_that_submitted_them(monkeypatch):
    monkeypatch.setenv(COMMAND, "snakemake --cores all --configfile mine.yaml")
    monkeypatch.setenv(OWNER, "")
    set_owner_process()
    assert os.environ[COMMAND].endswith("mine.yaml")
    set_owner_process("snakemake --cores all")
    assert os.environ[COMMAND] == "snakemake --cores all"
