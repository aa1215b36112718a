"""A command ends with the snakemake that started it, and worker processes with their command."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cutsew.owner import OWNER, announce

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")

SLEEP = "import time; from cutsew.owner import {0}; {0}(); print('ready', flush=True); time.sleep(60)"


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
    announce()
    monkeypatch.setenv(OWNER, os.environ.pop(OWNER).replace(str(os.getpid()), str(sleeper.pid)))
    yield sleeper
    sleeper.kill()
    sleeper.wait()


def test_a_command_is_killed_when_its_owner_ends(owner):
    command = start(SLEEP.format("end_with_owner"))
    assert command.stdout.readline() == "ready\n"
    time.sleep(0.2)
    assert command.poll() is None
    owner.kill()
    owner.wait()
    assert command.wait(20) == -signal.SIGKILL


def test_a_command_does_not_start_without_its_owner(owner):
    owner.kill()
    owner.wait()
    command = start(SLEEP.format("end_with_owner"))
    assert command.wait(20) == -signal.SIGKILL and command.stdout.read() == ""


@pytest.mark.parametrize("value", ["", "elsewhere pid:[1] 1"])
def test_without_an_owner_on_this_machine_a_command_goes_on(monkeypatch, value):
    monkeypatch.setenv(OWNER, value)
    command = start("from cutsew.owner import end_with_owner; end_with_owner(); print('done')")
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
