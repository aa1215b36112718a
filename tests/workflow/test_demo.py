"""The default config is the embedded demo: planned here, run by `make demo`."""

import copy
import re

import pytest
import yaml
from workflow_run import JOB, ROOT, Workflow, draw_image

from cutsew.config import override

pytestmark = pytest.mark.workflow


@pytest.fixture
def demo(tmp_path):
    return Workflow(tmp_path, yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))


def test_the_world_and_the_manifest_come_first(demo):
    planned = demo.snakemake("--dry-run").stdout
    assert {"demo_world", "manifest", "text", "train", "report"} <= set(JOB.findall(planned))
    assert "tiny_clip" not in JOB.findall(planned)


def test_a_flag_has_the_teacher_trained_anew(demo):
    demo.settings = copy.deepcopy(demo.settings)
    demo.edit(dataset__demo__rebuild_teacher=True)
    planned = demo.snakemake("--dry-run", "--printshellcmds").stdout
    assert "tiny_clip" in JOB.findall(planned)
    rebuilt = "results/demo/default/cutsew-tiny.safetensors"
    text = next(line for line in planned.splitlines() if "cutsew --log" in line and " text " in line)
    assert f'"pretrained": "{rebuilt}"' in text


def test_another_config_file_inherits_nothing_of_the_demo(demo):
    draw_image(demo.folder / "images" / "a.jpg", 0)
    draw_image(demo.folder / "images" / "b.jpg", 1)
    own_values = yaml.safe_load((ROOT / "config" / "folder.yaml").read_text())
    (demo.folder / "mine.yaml").write_text(yaml.safe_dump(own_values))
    done = demo.snakemake("--dry-run", "--printshellcmds", "--configfile", "mine.yaml")
    assert done.returncode == 0, done.stderr
    planned = done.stdout + done.stderr
    assert '"head": "linear"' in planned and "device=auto" in planned and "results/mine/default" in planned
    assert "diningtable" not in planned


def test_the_default_profile_is_merged_in(demo):
    planned = demo.snakemake("--dry-run")
    assert "profiles/default" in planned.stdout + planned.stderr


@pytest.mark.parametrize("first", ["open_clip", "scores"])
def test_runs_may_have_different_teachers(demo, first):
    """Both ways of making logits.zarr in one dataset, whichever the base run has."""
    (demo.folder / "scores.npz").touch()
    teachers = {"open_clip": demo.settings["teacher"], "scores": {"kind": "scores", "scores": {"file": "scores.npz"}}}
    second = "scores" if first == "open_clip" else "open_clip"
    demo.settings = override(demo.settings, {"teacher": teachers[first]})
    demo.edit(runs={"other": {"teacher": teachers[second]}})
    done = demo.snakemake("--dry-run")
    assert done.returncode == 0, done.stderr
    jobs = JOB.findall(done.stdout)
    assert jobs.count("import_scores") == jobs.count("score") == jobs.count("text") == 1
    made_by = dict(re.findall(r"rule (\w+):\n(?:    .*\n)*?    output: (results/\S+/logits.zarr)", done.stdout))
    runs = (
        {"score": "default", "import_scores": "other"}
        if first == "open_clip"
        else {"score": "other", "import_scores": "default"}
    )
    assert made_by == {rule: f"results/demo/{run}/logits.zarr" for rule, run in runs.items()}
