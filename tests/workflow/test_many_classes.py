"""Nine thousand classes: their names are longer than any argument that Linux hands over to a command."""

import json

import numpy as np
import pytest
from workflow_run import Workflow

from cutsew.pipeline.job_files import SETTINGS as SETTINGS_FOLDER

pytestmark = pytest.mark.workflow

CLASSES = [f"number {c} of the people's classes" for c in range(9_000)]
IMAGES = [f"{i}.jpg" for i in range(4)]


def write_scores(path, classes):
    """Give each image one sure class of its own."""
    z = np.full((len(IMAGES), len(classes)), -8, dtype=np.float32)
    z[np.arange(len(IMAGES)), np.arange(len(IMAGES))] = 3
    names = {"classes": np.array(classes), "ids": np.array(IMAGES)}
    np.savez(path, zero_shot=z, crops=z[None], **names)


def test_their_names_reach_every_job_and_a_change_reruns_those_that_read_them(tmp_path):
    settings = {
        "classes": CLASSES,
        "dataset": {"name": "many", "kind": "ids"},
        "teacher": {"kind": "scores", "scores": {"file": "scores.npz", "values": "logits"}},
        "thresholds": {"rule": "fixed"},
        "student": {"kind": "none"},
    }
    write_scores(tmp_path / "scores.npz", CLASSES)
    workflow = Workflow(tmp_path, settings)
    pseudo = "results/many/default/pseudo.zarr/zarr.json"
    assert workflow.run(pseudo) == {"manifest": 1, "import_scores": 1, "fuse": 1, "correct": 1}
    record = json.loads((workflow.folder / "results/many/default/logits.json").read_text())
    assert record["settings"]["classes"] == CLASSES
    assert list((workflow.folder / "results/many" / SETTINGS_FOLDER).iterdir())
    assert workflow.run(pseudo) == {}
    workflow.edit(classes=[*CLASSES[:-1], "another"])
    write_scores(tmp_path / "scores.npz", [*CLASSES[:-1], "another"])
    assert workflow.run(pseudo)["import_scores"] == 1
    record = json.loads((workflow.folder / "results/many/default/logits.json").read_text())
    assert record["settings"]["classes"][-1] == "another"
