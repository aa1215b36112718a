"""Hostile names go through the whole workflow, with the network cut: nothing runs, lands elsewhere or asks anybody."""

import html
import json
import re

import pandas as pd
import pytest
import yaml
from workflow_run import SETTINGS, Offline, cutsew, draw_image

pytestmark = pytest.mark.workflow

CLASSES = [
    "<script>alert(1)</script>",
    "../../x",
    "$(touch x)",
    "carriage\rreturn",
    "new\nline, 'quoted\" {wild}",
    "id",
    "path",
    "class",
]
NAMES = [
    "$(touch x).jpg",
    "`touch x`.jpg",
    "new\nline.jpg",
    "carriage\rreturn.jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "-rf.jpg",
    "{run} ; touch x.jpg",
]
HELD_OUT = ["held-out/$(touch x).jpg", "held-out/'\";\n.jpg"]


def settings():
    chosen = json.loads(json.dumps(SETTINGS)) | {"classes": CLASSES, "explain": {"num_maps": 1, "num_embeddings": 2}}
    chosen["dataset"] |= {"name": "hostile"}
    chosen["labels"] = {"overrides": "$(touch x).csv"}
    chosen["prompts"] = {"names": {CLASSES[1]: "; touch x #"}}
    return chosen


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "it's $(touch x)"
    for number, name in enumerate([*NAMES, *HELD_OUT]):
        draw_image(folder / "images" / name, number)
    rows = [{"path": name, "labels": CLASSES[i % 2 * 2]} for i, name in enumerate([*NAMES, *HELD_OUT])]
    rows[0]["labels"] = ";".join(name for name in CLASSES)
    pd.DataFrame(rows).to_csv(folder / "truth.csv", index=False)
    pd.DataFrame([{"image": NAMES[0], "class": CLASSES[0], "present": 1}]).to_csv(
        folder / "$(touch x).csv", index=False
    )
    workflow = Offline(folder, settings())
    done = workflow.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow


def test_nothing_ran_and_nothing_landed_elsewhere(hostile):
    available = {path.name for path in hostile.folder.iterdir()}
    assert available == {"images", "truth.csv", "$(touch x).csv", "config", "bin", "results", ".snakemake"}
    assert {path.name for path in hostile.folder.parent.iterdir()} == {hostile.folder.name}
    assert not list(hostile.folder.rglob("x"))
    assert not (hostile.folder / "asked").exists(), (hostile.folder / "asked").read_text()


def test_names_are_as_they_were(hostile):
    run = hostile.results / "default"
    assert set(pd.read_parquet(run / "images.parquet")["id"]) == {*NAMES, *HELD_OUT}
    assert set(pd.read_csv(run / "labels.csv")["id"]) == {*NAMES, *HELD_OUT}
    assert pd.read_csv(run / "per_class.csv")["class"].unique().tolist() == CLASSES
    assert yaml.safe_load((run / "model.yaml").read_text())["classes"] == CLASSES


def test_the_report_escapes_them(hostile):
    page = (hostile.results / "default" / "report.html").read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)[1]
    assert json.loads(data)["classes"] == CLASSES
    assert page.count("<script") == 2 and "<img src=x" not in page
    assert html.escape(CLASSES[0]) in page or CLASSES[0].replace("<", "&lt;").replace(">", "&gt;") in page


def test_the_commands_take_them(hostile):
    run = hostile.results / "default"
    for words in (
        ["audit", run],
        ["audit", run, "--image", NAMES[0]],
        ["audit", run, "--class", CLASSES[0]],
        ["verify", run],
        ["predict", hostile.folder / "images", run, hostile.folder / "labels.json", "--device", "cpu"],
    ):
        done = cutsew(hostile, *words)
        assert done.returncode == 0, done.stderr
    assert {row["image"] for row in json.loads((hostile.folder / "labels.json").read_text())} == {*NAMES, *HELD_OUT}
    (hostile.folder / "labels.json").unlink()
