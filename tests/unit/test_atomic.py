"""A file or folder is there whole or not at all, and nothing is left lying about."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutsew.artefacts.atomic import replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_what_was_there(tmp_path, folder):
    for text in ("first", "second"):
        try:
            with replacing(tmp_path / "made") as draft:
                target = draft / "a" if folder else draft
                target.parent.mkdir(exist_ok=True)
                target.write_text(text)
                if text == "second":
                    raise KeyError
        except KeyError:
            pass
    made = tmp_path / "made"
    assert (made / "a" if folder else made).read_text() == "first"
    assert names(tmp_path) == ["made"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_left_is_removed(tmp_path, folder):
    code = (
        "import os, sys; from pathlib import Path; from cutsew.artefacts.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as draft:\n"
        f"    draft.mkdir() if {folder} else draft.write_text('half')\n"
        "    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "made"], check=False)
    assert len(names(tmp_path)) == 1 and names(tmp_path)[0].endswith(".draft")
    with replacing(tmp_path / "made") as draft:
        draft.write_text("whole")
    assert names(tmp_path) == ["made"]


def test_another_files_draft_is_left_alone(tmp_path):
    with replacing(tmp_path / "world.json") as other:
        other.write_text("{}")
        with replacing(tmp_path / "world") as draft:
            draft.write_text("x")
    assert names(tmp_path) == ["world", "world.json"]


@given(st.text(st.characters(codec="ascii", exclude_characters="/\0\n"), min_size=1, max_size=20))
def test_any_name_will_do(tmp_path_factory, name):
    if name in (".", ".."):
        return
    folder = tmp_path_factory.mktemp("any")
    for text in ("one", "two"):
        with replacing(folder / name) as draft:
            draft.write_text(text)
    assert names(folder) == [name] and (folder / name).read_text() == "two"
