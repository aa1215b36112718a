"""What an edit is answered with, what verify's command does, and what a copied project runs."""

import copy
import os
import re
import shutil
import subprocess

import pytest
from safetensors.torch import load_file, save_file
from workflow_run import Workflow, draw_image

from cutsew.demo.tiny_clip import SHIPPED

pytestmark = pytest.mark.workflow

TOLD = re.compile(r"^(?:changed|will run|nothing has changed|and \d+ more|snakemake's notes).*$", re.MULTILINE)


def told(workflow, *arguments):
    done = workflow.snakemake(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return TOLD.findall(done.stdout + done.stderr)


def shell(command, folder):
    """Run a printed command as it stands, as one would paste it."""
    path = f"{Workflow.warm.binaries}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def command_of(line):
    return line[line.index(": snakemake ") + 2 :].rstrip(")")


@pytest.fixture(scope="module")
def made(workflow):
    """The workflow once run, with an image that is added in a test."""
    assert told(workflow) == []  # a first run says nothing
    return workflow


@pytest.fixture
def edited(made):
    before = copy.deepcopy(made.settings)
    yield made
    made.settings = before


def test_nothing_is_said_where_nothing_is_to_do(made):
    assert told(made) == told(made, "--dry-run") == []


def test_an_edit_is_told_before_it_runs(edited):
    edited.edit(fuse__alpha=0.3)
    lines = told(edited, "--dry-run")
    assert lines[0] == "changed: fuse.alpha 0.1 -> 0.3" and len(lines) == 2
    assert lines[1].startswith(
        "will run: fuse, correct, train, predict, thresholds, labels_table, evaluate, report (8 jobs); kept: "
    )
    assert "encode x2" in lines[1]


def test_images_are_counted(made):
    images = made.folder / "images"
    draw_image(images / "new.jpg", 99)
    (images / "8.jpg").rename(made.folder / "8.jpg")
    try:
        lines = told(made, "--dry-run")
    finally:
        (made.folder / "8.jpg").rename(images / "8.jpg")
        (images / "new.jpg").unlink()
    assert lines[0] == "changed: 1 image added, 1 removed"
    assert lines[1].startswith("will run: manifest (1 job), then what depends on images")


def test_the_file_of_true_labels(made):
    truth = made.folder / "truth.csv"
    before, times = truth.read_text(), truth.stat()
    truth.write_text(before.replace("3.jpg,", "3.jpg,dog;"))
    lines = told(made, "--dry-run")
    truth.write_text(before)
    os.utime(truth, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert lines[0] == "changed: true labels edited (truth.csv)"
    assert lines[1].startswith("will run: truth, evaluate, report (3 jobs)")


def copied(made, folder, *, notes):
    """Copy a project as `cp -r` does, with new times; `notes`: with .snakemake."""
    ignore = None if notes else shutil.ignore_patterns(".snakemake")
    shutil.copytree(made.folder, folder, copy_function=shutil.copy, ignore=ignore)
    return Workflow(folder, copy.deepcopy(made.settings))


def test_a_copy_with_snakemakes_notes_is_kept_by_touch_or_reads_its_images_again(made, tmp_path):
    first = copied(made, tmp_path / "first", notes=True)
    lines = told(first, "--dry-run")
    assert lines[0].startswith("changed: images have other times, but the same names and sizes")
    command = command_of(lines[0])
    assert command.endswith(" --touch")
    assert shell(command, first.folder).returncode == 0
    assert first.run() == {}
    second = copied(made, tmp_path / "second", notes=True)
    assert second.run() == {"manifest": 1}
    assert second.run() == {}


def test_a_copy_without_snakemakes_notes_is_kept_by_touch_and_hides_no_edit(made, tmp_path):
    plain = copied(made, tmp_path / "plain", notes=False)
    # An order of times in which what follows encoding is older than it, whatever order the files were copied in.
    for chunk in plain.results.joinpath("default", "views.zarr").rglob("*"):
        os.utime(chunk)
    (line, will_run) = told(plain, "--dry-run")
    assert line.startswith("nothing has changed, but the results of ") and "seal" in line
    assert will_run.startswith("will run: ") and "train" in will_run
    assert shell(command_of(line), plain.folder).returncode == 0
    assert plain.run("--dry-run") == {}
    shutil.rmtree(plain.folder / ".snakemake")
    plain.edit(fuse__alpha=0.3)
    lines = told(plain, "--dry-run")
    assert lines[0] == "changed, but not rerun: fuse.alpha 0.1 -> 0.3"
    assert "results/tiny/default/fused.zarr/zarr.json" in command_of(lines[1])


def test_a_copy_with_its_times_runs_nothing(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "exact", copy_function=shutil.copy2)
    assert Workflow(tmp_path / "exact", made.settings).run("--dry-run") == {}


def test_verify_names_the_stale_results_and_its_command_rebuilds_them(edited):
    settings = edited.folder / "my settings" / "mine.yaml"
    edited.edit(fuse__alpha=0.4)
    edited.run("--dry-run")  # writes the config file
    settings.parent.mkdir()
    shutil.copy(edited.folder / "config" / "config.yaml", settings)
    run = "results/tiny/default"
    edited.run("--configfile", str(settings), "--", f"{run}/fused.zarr/zarr.json")
    result = shell(f"cutsew verify {run}", edited.folder)
    *lines, says, command = result.stdout.splitlines()
    assert result.returncode == 1 and says == "to rebuild:"
    assert f"{run}/pseudo.zarr: stale: made from an earlier fused.zarr" in lines
    assert not [line for line in lines if line.startswith(f"{run}/fused.zarr")]
    assert "--configfile 'my settings/mine.yaml' --forcerun " in command
    done = shell(command, edited.folder)
    assert done.returncode == 0, done.stderr
    assert shell(f"cutsew verify {run}", edited.folder).returncode == 0


def test_replaced_weights_rerun_and_touched_ones_do_not(made, tmp_path):
    shutil.copytree(made.folder / "images", tmp_path / "images")
    own_values = Workflow(tmp_path, copy.deepcopy(made.settings))
    weights = tmp_path / "mine.safetensors"
    tensors = load_file(SHIPPED)
    save_file(tensors, weights)
    own_values.edit(teacher__open_clip__pretrained="mine.safetensors", dataset__truth=None)
    target = "results/tiny/default/text.zarr/zarr.json"
    assert own_values.run(target) == {"text": 1}
    os.utime(weights)
    assert own_values.run(target) == {}
    other = {name: values * 1.01 if values.is_floating_point() else values for name, values in tensors.items()}
    save_file(other, weights)
    assert told(own_values, "--dry-run", target)[:1] == ["changed: weights replaced (mine.safetensors)"]
    assert own_values.run(target) == {"text": 1}
