"""A file or folder is there whole or not at all, and nothing is left lying about."""

import errno
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutsew.errors import UserError
from cutsew.storage.atomic import atomic_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_what_was_there(tmp_path, folder):
    for text in ("first", "second"):
        try:
            with atomic_path(tmp_path / "made") as draft:
                target = draft / "a" if folder else draft
                target.parent.mkdir(exist_ok=True)
                target.write_text(text)
                if text == "second":
                    raise KeyError
        except KeyError:
            pass
    result = tmp_path / "made"
    assert (result / "a" if folder else result).read_text() == "first"
    assert names(tmp_path) == ["made"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_left_is_removed(tmp_path, folder):
    code = (
        "import os, sys; from pathlib import Path; from cutsew.storage.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as draft:\n"
        f"    draft.mkdir() if {folder} else draft.write_text('half')\n"
        "    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "made"], check=False)
    assert len(names(tmp_path)) == 1 and names(tmp_path)[0].endswith(".draft")
    with atomic_path(tmp_path / "made") as draft:
        draft.write_text("whole")
    assert names(tmp_path) == ["made"]


def test_another_files_draft_is_left_alone(tmp_path):
    with atomic_path(tmp_path / "world.json") as other:
        other.write_text("{}")
        with atomic_path(tmp_path / "world") as draft:
            draft.write_text("x")
    assert names(tmp_path) == ["world", "world.json"]


def write_and_fail(path, error):
    with atomic_path(path) as draft:
        draft.write_text("half")
        raise error(draft) if callable(error) else error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        lambda draft: OSError(errno.EACCES, "Permission denied", str(draft / "a")),
        lambda draft: OSError(errno.EROFS, "Read-only file system", str(draft.parent)),
    ],
)
def test_a_disk_that_cannot_be_written_is_told_in_one_line(tmp_path, error):
    with pytest.raises(UserError, match=r"made: cannot be written \(.+\); fix this and rerun"):
        write_and_fail(tmp_path / "made", error)
    assert names(tmp_path) == []


@pytest.mark.parametrize("free", [0, 2**30])
def test_an_error_without_a_reason_is_the_disks_where_it_is_full(tmp_path, monkeypatch, free):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(RuntimeError if free else UserError):  # as torch.save and safetensors do
        write_and_fail(tmp_path / "made", RuntimeError("unexpected pos 576 vs 534"))


def test_an_unreadable_input_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(PermissionError):
        write_and_fail(tmp_path / "made", OSError(errno.EACCES, "Permission denied", "/elsewhere/image.jpg"))


@given(st.text(st.characters(codec="ascii", exclude_characters="/\0\n"), min_size=1, max_size=20))
def test_any_name_will_do(tmp_path_factory, name):
    if name in (".", ".."):
        return
    folder = tmp_path_factory.mktemp("any")
    for text in ("one", "two"):
        with atomic_path(folder / name) as draft:
            draft.write_text(text)
    assert names(folder) == [name] and (folder / name).read_text() == "two"
