"""How jobs call the package, and what ends a call of snakemake in one line."""

import sys
from pathlib import Path

import pytest

from cutsew.errors import UserError
from cutsew.pipeline.snakemake_call import check_call, checked_config, command_of_jobs, default_config, exit_in_one_line


def test_jobs_run_the_package_of_this_python_or_of_their_environment(monkeypatch):
    assert command_of_jobs(deployed=True) == "cutsew"
    monkeypatch.setattr(sys, "executable", "/my {env}/bin/python")
    assert command_of_jobs(deployed=False) == "'/my {{env}}/bin/python' -P -m cutsew"


def test_only_a_user_error_ends_the_process_in_one_line():
    with pytest.raises(SystemExit, match=r"^cutsew: fuse\.alpha: negative$"), exit_in_one_line():
        raise UserError("fuse.alpha: negative")
    with pytest.raises(ValueError, match="a fault"), exit_in_one_line():
        raise ValueError("a fault")
    with exit_in_one_line():
        pass


def test_config_files_are_checked_before_snakemake_reads_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, text in (("damaged", "classes: ["), ("sound", "classes: [cat, dog]")):
        Path(folder, "config").mkdir(parents=True)
        Path(folder, "config/config.yaml").write_text(text)
    sound, damaged = Path("sound/config/config.yaml"), Path("damaged/config/config.yaml")
    assert checked_config(sound) == str(sound)
    assert default_config(Path("none"), Path("sound"), Path("damaged")) == str(sound)
    check_call(["-n", "--configfile", str(sound)])
    one_line = r"^cutsew: damaged/config/config\.yaml, line 1: not YAML .*"
    for call in (
        lambda: checked_config(str(damaged)),
        lambda: default_config(Path("damaged"), Path("sound")),
        lambda: check_call(["--configfile", str(damaged)]),
    ):
        with pytest.raises(SystemExit, match=one_line) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit, match=r"^cutsew: none/config/config\.yaml: cannot be read"):
        default_config(Path("none"))
