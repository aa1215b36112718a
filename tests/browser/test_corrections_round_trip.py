"""From ticks in the report's page to the exported labels, on a training and on a held-out image."""

import json
import re

import pytest
from workflow_run import SETTINGS, Workflow, cutsew, draw_image

pytestmark = [pytest.mark.browser, pytest.mark.workflow]

HELD_OUT, TRAINING = "held-out/1.jpg", "4.jpg"
CLASS = "dog"
RUN = "results/tiny/default"


@pytest.fixture
def workflow(tmp_path):
    """A finished run without truth."""
    settings = json.loads(json.dumps(SETTINGS))
    settings["dataset"].pop("truth")
    for i in range(9):
        draw_image(tmp_path / "images" / (f"held-out/{i}.jpg" if i < 3 else f"{i}.jpg"), i)
    result = Workflow(tmp_path, settings)
    result.run()
    return result


@pytest.fixture
def open_report(browser, workflow):
    """Open the run's report as a browser that never saw it before."""
    contexts = []

    def start():
        contexts.append(browser.new_context(viewport={"width": 1200, "height": 900}))
        page = contexts[-1].new_page()
        page.goto((workflow.folder / RUN / "report.html").as_uri())
        page.click("#images")  # the closer look is folded
        return page

    yield start
    for context in contexts:
        context.close()


def card_of(page, image):
    card = page.locator("figure.card", has=page.locator(f".id b:text-is('{image}')"))
    assert card.count() == 1
    return card


def named(page, image):
    """Check whether the last measured stage names CLASS in an image."""
    data = json.loads(page.text_content("#data"))
    card = next(card for card in data["cards"] if card["id"] == image)
    last = [stage for stage in data["stages"][card["split"]] if stage != "final"][-1]
    place = data["stages"][card["split"]].index(last)
    return any(label["c"] == data["classes"].index(CLASS) and label["n"][place] for label in card["labels"])


def tick(page, image, present):
    """Say of CLASS that it is in an image or not, as a user would."""
    card = card_of(page, image)
    row = card.locator("tbody tr", has=page.locator(f"button.name:text-is('{CLASS}')"))
    if row.count() == 0:
        card.locator("form.missing input").fill(CLASS)
        card.locator("form.missing button").click()
    if row.locator(f"button[data-present='{present}']").get_attribute("aria-pressed") == "false":
        row.locator(f"button[data-present='{present}']").click()


def feed_back(page, workflow):
    """Download the corrections and name the file in the config."""
    with page.expect_download() as download:
        page.click("#download")
    (workflow.folder / "audit.csv").write_bytes(download.value.path().read_bytes())
    workflow.edit(labels={"overrides": "audit.csv"})


def final_cell(page, image):
    row = card_of(page, image).locator("tbody tr", has=page.locator(f"button.name:text-is('{CLASS}')"))
    cell = row.locator("td.hand")
    return re.sub(r"\s+", " ", cell.text_content()).strip() if cell.count() else None


def exported(workflow):
    """What a COCO file says of CLASS, by image: whether it is a label, and what is marked as a human's."""
    done = cutsew(workflow, "labels", RUN, "labels.json", "--format", "coco")
    assert done.returncode == 0, done.stderr
    result = json.loads((workflow.folder / "labels.json").read_text())
    place = next(c["id"] for c in result["categories"] if c["name"] == CLASS)
    sources = {a["image_id"]: a.get("source") for a in result["annotations"] if a["category_id"] == place}
    return {
        image["image"]: (image["id"] in sources, sources.get(image["id"]), image.get("corrections"))
        for image in result["images"]
    }


def wanted(present):
    return bool(present), "human" if present else None, {CLASS: present}


def test_ticks_come_out_in_the_exported_labels(workflow, open_report):
    page = open_report()
    held_out, training = (int(not named(page, image)) for image in (HELD_OUT, TRAINING))
    page.fill("#by", "Ada")
    tick(page, HELD_OUT, held_out)
    feed_back(page, workflow)
    assert workflow.run() == {"corrections": 1, "labels_table": 1, "report": 1}  # nothing is trained
    assert exported(workflow)[HELD_OUT] == wanted(held_out)

    page = open_report()
    assert "they train nothing" in page.text_content("#corrected-by-hand")
    assert page.text_content("#corrected") == "1 correction"  # the page starts from what was fed back
    assert final_cell(page, HELD_OUT) == f"{'yes' if held_out else 'no'}by hand"
    tick(page, TRAINING, training)
    feed_back(page, workflow)
    jobs = workflow.run()
    assert jobs["corrections"] == jobs["override"] == jobs["train"] == jobs["report"] == 1
    assert not {"score", "fuse", "correct", "select", "encode"} & set(jobs)

    page = open_report()
    assert final_cell(page, HELD_OUT) == f"{'yes' if held_out else 'no'}by hand"
    assert final_cell(page, TRAINING) == f"{'yes' if training else 'no'}by hand"
    assert final_cell(page, "5.jpg") is None
    labels = exported(workflow)
    assert labels[HELD_OUT] == wanted(held_out) and labels[TRAINING] == wanted(training)
    assert {image for image, (_, _, stated) in labels.items() if stated is not None} == {HELD_OUT, TRAINING}
    assert workflow.run("--dry-run") == {}
