"""Faults of the machine at every stage: one line, nothing half-written; cured, the same command makes the same bytes."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from cutsew.data.loader import batches
from cutsew.errors import UserError, in_one_line
from trouble import images, world
from trouble.case import OUT

STAGES = {stage: act for stage, act in world.STAGES.items() if stage != "report"}
"""The report needs images, and writes as the others do."""

PLACE = ("start", "end", "host", "job", "gpus")


def content(folder: Path) -> dict[str, object]:
    """Return what every file holds; of records, what does not tell the time."""
    result: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            result[str(path.relative_to(folder))] = path.read_bytes()
        if path.suffix == ".json" and path.name != "zarr.json":
            record = json.loads(path.read_text())
            result[str(path.relative_to(folder))] = {k: v for k, v in record.items() if k not in PLACE}
    return result


def where(stage: str, folder: Path) -> tuple[Path, Path]:
    """Return a run to read and a folder to write to; the seal is written where its chunks are."""
    run = world.copy(folder)
    if stage == "seal":
        shutil.rmtree(run / "text.zarr")
        for name in ("zarr.json", "image", "pass", "edge"):
            path = run / "views.zarr" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return run, run
    return run, folder / OUT


def cured(stage: str, run: Path, out: Path) -> None:
    """Run a stage after the fault, and in a place where there was none; both must have made the same."""
    STAGES[stage](run, out)
    if out == run:
        assert content(out / "views.zarr") == content(world.base() / "views.zarr")
        return
    undisturbed = out.with_name("undisturbed")
    STAGES[stage](run, undisturbed)
    assert content(out) == content(undisturbed)


def refused(stage: str, run: Path, out: Path, reason: str) -> None:
    before = content(out) if out == run else {}
    with pytest.raises(UserError) as caught:
        STAGES[stage](run, out)
    text = str(caught.value)
    assert text.isprintable() and f"cannot be written ({reason})" in text and "fix this and rerun" in text
    assert not list(out.parent.rglob("*.draft"))
    result = content(out).keys() - before.keys() if out.exists() else set()
    assert not [name for name in result if out != run or name.endswith("views.zarr/zarr.json")]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_cannot_be_written(tmp_path, monkeypatch, stage, code):
    run, out = where(stage, tmp_path)

    def refuse(self, target):
        raise OSError(code, os.strerror(code), str(self))

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", refuse)
        refused(stage, run, out, os.strerror(code))
    cured(stage, run, out)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_of_another_user(tmp_path, stage):
    run, out = where(stage, tmp_path)
    out.mkdir(exist_ok=True)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o005 != 0o005 and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    os.seteuid(65534)
    try:
        if not os.access(run / "images.parquet", os.R_OK, effective_ids=True):
            pytest.skip("nobody can read the place of temporary files")
        refused(stage, run, out, "Permission denied")
    finally:
        os.seteuid(0)
    cured(stage, run, out)


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"seal"}))
def test_a_file_where_the_folder_of_a_run_should_be(tmp_path, stage):
    run, out = where(stage, tmp_path)
    out.write_text("mine")
    with pytest.raises(UserError, match=rf"^{re.escape(str(out))}: is a file where a folder is needed; move it away"):
        STAGES[stage](run, out)
    assert out.read_text() == "mine"
    out.unlink()
    cured(stage, run, out)


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_where_a_file_should_be(tmp_path, stage):
    run, out = where(stage, tmp_path)
    made = shutil.copytree(run, tmp_path / "made") if out == run else tmp_path / "made"
    STAGES[stage](made if out == run else run, made)
    names = ["views.json"] if out == run else sorted(path.name for path in made.iterdir() if path.is_file())
    for name in names:
        out.joinpath(name).unlink(missing_ok=True)
        out.joinpath(name, "mine").mkdir(parents=True)
        with pytest.raises(UserError, match=rf"/{re.escape(name)}: is a folder where a file is needed; move it away"):
            STAGES[stage](run, out)
        out.joinpath(name, "mine").rmdir()
        out.joinpath(name).rmdir()
    if out != run:
        cured(stage, run, out)


class Died(BaseException):
    """The machine went down."""


@pytest.mark.parametrize("stage", STAGES)
def test_a_rename_that_is_a_copy_and_dies_in_the_middle(tmp_path, monkeypatch, stage):
    run, out = where(stage, tmp_path)

    def copy_half(self, target):
        if self.is_dir():
            files = sorted(path for path in self.rglob("*") if path.is_file())
            for path in files[: len(files) // 2]:
                copied = target / path.relative_to(self)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copied)
        else:
            data = self.read_bytes()
            Path(target).write_bytes(data[: len(data) // 2])
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", copy_half)
        with pytest.raises(Died):
            STAGES[stage](run, out)
    result = out / {"score": "logits.zarr", "fuse": "fused.zarr", "correct": "pseudo.zarr"}.get(stage, "none")
    if result.is_dir():  # what was half-copied is no artifact to the stage after it
        after = {"score": "fuse", "fuse": "correct", "correct": "evaluate"}[stage]
        shutil.rmtree(run / result.name)
        shutil.copytree(result, run / result.name)
        with pytest.raises(UserError, match=result.name):
            STAGES[after](run, tmp_path / "after")
    cured(stage, run, out)


@pytest.mark.parametrize("stage", STAGES)
def test_a_clock_that_was_set_back(tmp_path, stage):
    run, out = where(stage, tmp_path)
    for path in run.rglob("*"):
        os.utime(path, (4_000_000_000, 4_000_000_000))
    cured(stage, run, out)


@pytest.mark.parametrize("stage", STAGES)
def test_no_memory_left(tmp_path, monkeypatch, stage):
    run, out = where(stage, tmp_path)

    def exhausted(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("cutsew.storage.atomic._remove_left", exhausted)
        with pytest.raises(MemoryError) as caught:
            STAGES[stage](run, out)
    assert in_one_line(caught.value).startswith("this machine's memory does not suffice")
    assert not out.exists() or out == run or not content(out)
    cured(stage, run, out)


LIMITED = """
import resource, sys
from pathlib import Path
import pyarrow.parquet
from trouble.images import make
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
print(make(Path(sys.argv[1]), "skip")["id"].tolist())
"""


def test_a_image_that_does_not_fit_into_memory_is_skipped_and_listed(tmp_path):
    images.beside_a_good_one(tmp_path, "large.png", images.holding(images.png(11_000, 11_000, large())))
    here = {
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "1",  # each thread's own would reserve address space that the limit counts
        "PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(world.__file__).parents[2] / 'src'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], env=os.environ | here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['good.png']"
    assert "large.png,too large for this machine's memory" in (tmp_path / OUT / "skipped.csv").read_text()


def large() -> bytes:
    row = zlib.compressobj(1)
    rows = b"\0" * (1 + 3 * 11_000)
    return b"".join([*(row.compress(rows) for _ in range(11_000)), row.flush()])


def killed(_):
    os.kill(os.getpid(), 9)


def test_a_killed_worker_is_told_in_one_line():
    with pytest.raises(RuntimeError) as caught:
        list(batches(killed, 4, [[0, 1], [2, 3]], list, workers=1))
    assert in_one_line(caught.value).startswith("a process that reads images was killed")


def test_what_is_a_fault_of_the_program_keeps_its_traceback():
    assert in_one_line(KeyError("x")) is None
    assert in_one_line(FileNotFoundError(2, "No such file or directory", "a\nb.txt")).startswith(r"a\nb.txt: No such")


COMMANDS = [
    (
        ["manifest", "out/images.parquet", "--settings", '{"dataset": {"kind": "folder", "root": "none"}}'],
        "dataset.root: none",
    ),
    (["manifest", "out/images.parquet", "--settings", "{"], "--settings: not JSON"),
    (
        ["fuse", "none.zarr", "out/fused.zarr", "--settings", '{"fuse": {}, "score": {}}'],
        "none.zarr: not a finished Zarr",
    ),
    (
        ["correct", "run/fused.zarr", "out/pseudo.zarr", "--settings", '{"correct": {}}'],
        "run/fused.zarr/z: a chunk of it is damaged",
    ),
    (["--log", "run/images.parquet/x.log", "verify", "run"], "--log: run/images.parquet: is a file"),
    (["gc", "--configfile", "twice.yaml"], "twice.yaml, line 2: not YAML"),
]


@pytest.mark.parametrize(("words", "said"), COMMANDS, ids=[words[0] + str(i) for i, (words, _) in enumerate(COMMANDS)])
def test_the_command_line_ends_in_that_line(tmp_path, words, said):
    world.copy(tmp_path)
    chunk = tmp_path / "run" / "fused.zarr" / "z" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    (tmp_path / "twice.yaml").write_text("classes: [a, b]\nclasses: [c, d]\n")
    done = subprocess.run(
        [sys.executable, "-m", "cutsew", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    last = done.stderr.replace("\r", "\n").strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith(f"cutsew: {said}"), done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("out*") if path.is_file() or any(path.iterdir())]
