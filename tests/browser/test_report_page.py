"""What an auditor does in the report: filter, sort, look at crops, tick, add, download."""

import csv
import io
import json
import re
from datetime import datetime

import pytest

from browser.hostile import CLASSES, COUNT, NAMES

pytestmark = pytest.mark.browser

KEPT_NOTHING = "Storage.prototype.getItem = Storage.prototype.setItem = () => { throw new Error('no storage') }"


@pytest.fixture
def page(open_page):
    return open_page()


@pytest.fixture(scope="module")
def data(report_file):
    text = report_file.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)[1])


def shown(page):
    """Names of the images in the order in which they stand."""
    return page.eval_on_selector_all(
        "figure.card:not([hidden])", "all => all.map(x => x.querySelector('.id b').textContent)"
    )


def wanted(data, keep):
    """Names of the images with a label that is kept; `keep` is given the card's stages and the label."""
    return {c["id"] for c in data["cards"] if any(keep(data["stages"][c["split"]], x) for x in c["labels"])}


def corrections(page):
    """Download the corrections and read them."""
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "demo-default-corrections.csv"
    text = download.value.path().read_bytes().decode()
    assert text.startswith("image,class,present,by,at\r\n")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_opens_and_shows_everything(page, data):
    assert page.title() == "demo / default - cutsew report"
    assert sorted(shown(page)) == sorted(NAMES)
    assert page.text_content("#count") == f"{COUNT} of {COUNT} images"
    page.evaluate("for (const picture of document.images) picture.loading = 'eager'")
    assert page.locator("img").count() > COUNT
    assert page.evaluate("Promise.all([...document.images].map(x => x.decode())).then(() => true)")  # else it throws


@pytest.mark.parametrize("width", [1200, 400])
def test_nothing_is_wider_than_the_page(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(x => x.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = "[...document.querySelectorAll('.scroll')].filter(x => x.scrollWidth > x.clientWidth).length"
    assert (page.evaluate(wide) == 0) == (width == 1200)


class TestFilters:
    @pytest.mark.parametrize("number", range(len(CLASSES)))
    def test_class(self, page, data, number):
        page.select_option("#by-class", str(number))
        assert set(shown(page)) == wanted(data, lambda stages, x: x["c"] == number)
        assert set(page.eval_on_selector_all("tr.hit", "all => all.map(x => x.dataset.class)")) == {str(number)}

    @pytest.mark.parametrize("stage", ["zero_shot", "fused", "pseudo", "refined", "student"])
    def test_stage(self, page, data, stage):
        page.select_option("#by-stage", stage)
        result = wanted(data, lambda stages, x: stage in stages and x["n"][stages.index(stage)])
        assert set(shown(page)) == result
        assert page.text_content("#count") == f"{len(result)} of {COUNT} images"

    @pytest.mark.parametrize(
        ("choice", "keep"),
        [
            ("same", all),
            ("differ", lambda n: any(n) and not all(n)),
            ("gained", lambda n: n[-1] and not n[0]),
            ("lost", lambda n: n[0] and not n[-1]),
        ],
    )
    def test_agreement(self, page, data, choice, keep):
        page.select_option("#by-agreement", choice)
        assert set(shown(page)) == wanted(data, lambda stages, x: keep(x["n"]))

    @pytest.mark.parametrize(("choice", "named", "truth"), [("right", 1, 1), ("wrong", 1, 0), ("missed", 0, 1)])
    def test_truth(self, page, data, choice, named, truth):
        page.select_option("#by-truth", choice)
        assert set(shown(page)) == wanted(data, lambda stages, x: x["n"][-1] == named and x["t"] == truth)
        page.select_option("#by-stage", "zero_shot")
        assert set(shown(page)) == wanted(data, lambda stages, x: x["n"][0] == named and x["t"] == truth)

    def test_confidence_class_and_back(self, page, data):
        page.fill("#by-low", "60")
        page.fill("#by-high", "90")
        page.select_option("#by-class", "1")
        result = wanted(data, lambda stages, x: x["c"] == 1 and 0.6 <= x["p"][-1] <= 0.9)
        assert set(shown(page)) == result
        assert 0 < len(result) < COUNT
        page.click("#all")
        assert page.text_content("#count") == f"{COUNT} of {COUNT} images"

    def test_reason(self, page, data):
        page.select_option("#by-reason", "most gained")
        assert set(shown(page)) == {c["id"] for c in data["cards"] if "most gained" in c["why"]}

    def test_checked(self, page, data):
        name = shown(page)[0]
        page.click("figure.card:not([hidden]) .check button")
        page.select_option("#by-check", "yes")
        assert shown(page) == [name]


@pytest.mark.parametrize(("order", "figure"), [("gained", "gained"), ("lost", "lost"), ("bits", "bits")])
def test_order(page, data, order, figure):
    page.select_option("#order", order)
    figures = {c["id"]: c[figure] for c in data["cards"]}
    result = [figures[name] for name in shown(page)]
    assert result == sorted(result, reverse=True)
    assert len(set(result)) > 1
    page.select_option("#order", "")
    assert shown(page) == [c["id"] for c in data["cards"]]


def test_order_by_confidence_of_a_class(page, data):
    page.select_option("#by-class", "0")
    sure = {c["id"]: x["p"][-1] for c in data["cards"] for x in c["labels"] if x["c"] == 0}
    for order, reverse in (("high", True), ("low", False)):
        page.select_option("#order", order)
        result = [sure[name] for name in shown(page)]
        assert result == sorted(result, reverse=reverse)
    page.select_option("#order", "id")
    assert [name.split(",")[0] for name in shown(page)] == sorted((n.split(",")[0] for n in shown(page)), key=int)


def test_a_class_in_focus_shows_its_own_crop(page):
    card = page.locator("figure.card:has(g.frame)").first
    row = card.locator("tbody tr:has(.crop)").first
    assert re.match(r"crop \d: \d+, whole image \d+, mirrored", row.locator(".crop").text_content())
    row.locator("button.name").focus()
    visible = card.locator("g.frame:visible")
    assert visible.count() == 1
    assert visible.get_attribute("data-class") == row.get_attribute("data-class")


class TestCorrections:
    def test_click_and_download(self, page):
        page.fill("#by", 'Ann "A", B')
        row = page.locator("figure.card tbody tr").first
        row.locator("button[data-present='0']").click()
        assert row.locator("button[data-present='0']").get_attribute("aria-pressed") == "true"
        assert page.text_content("#corrected") == "1 correction"
        (entry,) = corrections(page)
        assert entry["image"] == shown(page)[0]
        assert entry["class"] == CLASSES[int(row.get_attribute("data-class"))]
        assert (entry["present"], entry["by"]) == ("0", 'Ann "A", B')
        assert datetime.fromisoformat(entry["at"]).utcoffset().total_seconds() == 0
        row.locator("button[data-present='1']").click()
        assert [e["present"] for e in corrections(page)] == ["1"]
        row.locator("button[data-present='1']").click()
        assert page.text_content("#corrected") == "No corrections"
        assert page.is_disabled("#download")

    def test_keyboard(self, page):
        names = page.locator("figure.card tbody button.name")
        names.first.focus()
        page.keyboard.press("y")
        page.keyboard.press("y")  # says it again, and takes nothing back
        page.keyboard.press("ArrowDown")
        page.keyboard.press("n")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("y")
        page.keyboard.press("u")
        page.keyboard.press("ArrowUp")
        assert names.nth(1).evaluate("x => x === document.activeElement")
        assert [e["present"] for e in corrections(page)] == ["1", "0"]

    def test_every_class_name_survives(self, page):
        for i, name in enumerate(CLASSES):
            page.locator(f"figure.card tr[data-class='{i}'] button[data-present='1']").first.click()
            assert corrections(page)[-1]["class"] == name

    def test_missing_class(self, page, data):
        card = page.locator("figure.card").nth(next(i for i, c in enumerate(data["cards"]) if len(c["labels"]) < 4))
        available = set(card.locator("tbody tr").evaluate_all("all => all.map(x => Number(x.dataset.class))"))
        absent = next(i for i in (0, 1, 2, 3) if i not in available)
        field = card.locator(".missing input")
        field.fill("no such class")
        field.press("Enter")
        assert page.text_content("#corrected") == "No corrections"
        field.fill(CLASSES[absent])
        field.press("Enter")
        assert [(e["class"], e["present"]) for e in corrections(page)] == [(CLASSES[absent], "1")]
        page.reload()
        row = card.locator(f"tr[data-class='{absent}']")
        assert row.locator("button[data-present='1']").get_attribute("aria-pressed") == "true"

    def test_a_reload_loses_nothing(self, page):
        page.fill("#by", "Ann")
        page.locator("figure.card tbody button[data-present='1']").nth(3).click()
        before = corrections(page)
        page.reload()
        assert corrections(page) == before
        assert page.input_value("#by") == "Ann"
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("#clear")
        page.reload()
        assert page.text_content("#corrected") == "No corrections"
        assert page.locator("button[aria-pressed='true']").count() == 0

    def test_without_storage(self, open_page):
        page = open_page(KEPT_NOTHING)
        page.locator("figure.card tbody button[data-present='1']").first.click()
        assert "download before you close" in page.text_content("#storage")
        assert len(corrections(page)) == 1


def test_without_script(open_page, data):
    page = open_page(java_script_enabled=False)
    assert page.locator("figure.card").count() == COUNT
    assert page.locator("#gallery noscript").is_visible() and page.locator("#all-photos noscript").is_visible()
