"""Which command Slurm is asked about jobs with, against stand-ins for its own commands."""

import os
from dataclasses import dataclass

import pytest

from cutsew.errors import UserError
from cutsew.pipeline.slurm_status import choose_status_command

CONFIG = """Configuration data as of 2026-01-01T00:00:00
AccountingStorageHost   = localhost
AccountingStorageType   = {storage}
MinJobAge               = {age} sec
"""
NONE, SLURMDBD = "accounting_storage/none", "accounting_storage/slurmdbd"


@dataclass
class Settings:
    status_command: str | None = "sacct"
    init_seconds_before_status_checks: int | None = 10


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Put a controller and `sacct` on PATH, as the only commands."""

    def start(storage, age=300, sacct: str | None = "exit 0", scontrol="cat {config}"):
        config = tmp_path / "shown"
        config.write_text(CONFIG.format(storage=storage, age=age))
        for name, does in (("scontrol", scontrol.format(config=f"'{config}'")), ("sacct", sacct)):
            if does is not None:
                (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
                (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
        if sacct is None:
            monkeypatch.setattr("cutsew.pipeline.slurm_status.shutil.which", lambda _: None)

    return start


def test_with_accounting_sacct_is_asked(cluster):
    cluster(SLURMDBD)
    settings = Settings()
    assert choose_status_command(settings) is None
    assert settings == Settings()


@pytest.mark.parametrize("storage", [NONE, "(null)", ""])
def test_without_accounting_squeue_is_asked(cluster, storage):
    cluster(storage, sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1")
    settings = Settings()
    assert choose_status_command(settings) == (
        "Slurm: sacct cannot answer (accounting is off on this cluster); squeue is used instead"
    )
    assert settings == Settings("squeue", 10)


def test_sacct_that_fails_is_not_asked(cluster):
    cluster(SLURMDBD, sacct="exit 1")
    settings = Settings()
    assert "it fails when queried for this user's jobs" in choose_status_command(settings)
    assert settings.status_command == "squeue"


@pytest.mark.parametrize(("age", "seconds", "left"), [(300, 120, 100), (300, None, 40), (240, 10, 10)])
def test_the_first_query_comes_before_the_executor_goes_back_to_sacct(cluster, age, seconds, left):
    cluster(NONE, age=age)
    settings = Settings("squeue", seconds)
    assert choose_status_command(settings) is None
    assert settings == Settings("squeue", left)


@pytest.mark.parametrize("age", [0, 60, 199])
def test_a_cluster_that_forgets_its_jobs_too_soon_is_refused(cluster, age):
    cluster(NONE, age=age)
    settings = Settings()
    with pytest.raises(UserError, match=rf"MinJobAge = {age} s; have MinJobAge in slurm.conf set to 200 or more"):
        choose_status_command(settings)
    assert settings == Settings()


def test_without_sacct_a_cluster_that_forgets_nothing_is_asked(cluster):
    cluster(NONE, age=0, sacct=None)
    settings = Settings()
    assert choose_status_command(settings)
    assert settings == Settings("squeue", 10)


def test_a_controller_that_does_not_answer_is_left_to_sbatch(cluster):
    cluster(NONE, scontrol="exit 1")
    settings = Settings()
    assert choose_status_command(settings) is None
    assert settings == Settings()
