import json
import os
from types import SimpleNamespace

import pytest

from cutsew.errors import UserError
from cutsew.pipeline import job_files, rule_inputs
from cutsew.pipeline.plan import Plan
from cutsew.runtime.processes import COMMAND
from cutsew.stages.options import _parse

RUN = SimpleNamespace(run="default")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan(classes):
    return Plan({"classes": classes, "dataset": {"name": "big", "kind": "folder", "root": "."}})


def argument(result, stage="text"):
    return rule_inputs.settings(result, RUN, stage)


def test_jobs_on_nodes_name_the_main_process_command(monkeypatch):
    result = plan(["cat"])
    monkeypatch.setenv(COMMAND, "snakemake --cores 2")
    job_files.write(result, {})
    monkeypatch.delenv(COMMAND)
    job_files.restore_command(result)
    assert os.environ.pop(COMMAND) == "snakemake --cores 2"
    (result.dataset_folder / job_files.FOR_JOBS).write_text("[")
    job_files.restore_command(result)
    assert COMMAND not in os.environ


def test_settings_of_few_classes_stand_in_the_command():
    result = plan(["cat", "dog"])
    job_files.write(result, {})
    assert json.loads(argument(result))["classes"] == ["cat", "dog"]
    assert not (result.dataset_folder / job_files.SETTINGS).exists()


# A quote takes five bytes in a shell's word, a Chinese character three.
@pytest.mark.parametrize("letter", ["a", "'", "\u732b"])
@pytest.mark.parametrize("stage", ["text", "train", "report"])
def test_settings_of_many_classes_stand_in_a_file(letter, stage):
    result = plan([f"{letter * 4} {c}" for c in range(8_000)])
    job_files.write(result, {})
    given = argument(result, stage)
    if stage == "report" and not given.startswith("@"):
        assert "classes" not in json.loads(given)
        return
    assert given.startswith("@results/big/.settings/") and len(given) < 100
    assert _parse(given) == json.loads(result.params("default", stage))


def test_other_settings_have_another_file_and_so_rerun_the_stage():
    names = [f"class number {c}" for c in range(9_000)]
    assert argument(plan(names)) == argument(plan(names)) != argument(plan([*names[:-1], "other"]))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"cannot be read \(No such file or directory\); run the workflow again without --no-hooks; .*onstart"),
        (b"\xff", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
    ],
)
def test_a_missing_or_damaged_file_of_settings_is_one_line(tmp_path, content, says):
    if content is not None:
        (tmp_path / "some.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"^some\.json: {says}"):
        _parse("@some.json")
