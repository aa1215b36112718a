"""A whole run with a teacher and a student from a folder, with no network; the exported student needs no folder."""

import json
import re
import shutil

import pytest
import yaml
from tiny_models import model_folder
from workflow_run import SETTINGS, Offline, cutsew, draw_image

pytest.importorskip("transformers")
pytestmark = pytest.mark.workflow
NAME = "local-dir:models/words"


def test_a_folder_is_teacher_and_student(tmp_path):
    model_folder(tmp_path / "models/words")
    for i in range(9):
        draw_image(tmp_path / "images" / (f"held-out/{i}.jpg" if i < 3 else f"{i}.jpg"), i)
    settings = yaml.safe_load(yaml.safe_dump(SETTINGS))
    settings["dataset"].pop("truth")
    settings["teacher"] = {"open_clip": {"model": NAME, "image_size": None}}
    settings["student"] = {"open_clip": {"model": NAME, "image_size": 64}}
    offline = Offline(tmp_path, settings)
    offline.run()
    run = offline.results / "default"
    assert re.search(r'"weights": "[0-9a-f]{64}"', (run / "text.json").read_text())
    backbone = yaml.safe_load((run / "model.yaml").read_text())["backbone"]
    assert (backbone["open_clip"]["model"], backbone["open_clip"]["pretrained"]) == (NAME, None)
    assert str(tmp_path) not in (run / "model.yaml").read_text()
    done = cutsew(offline, "export", str(run), "exported")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "models")
    done = cutsew(offline, "predict", "images/held-out", "exported", "-", "--format", "json")
    assert done.returncode == 0 and json.loads(done.stdout), done.stderr
    assert not (tmp_path / "asked").exists(), (tmp_path / "asked").read_text()
    done = offline.snakemake("--forceall", "-n")
    assert done.returncode != 0
    assert f"cutsew: teacher.open_clip.model: {NAME}: no such folder" in done.stderr
    settings["teacher"]["open_clip"]["pretrained"] = "openai"
    done = offline.snakemake("-n")
    assert f"pretrained: {NAME} brings its weights; set pretrained: null" in done.stderr
