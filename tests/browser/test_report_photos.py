"""What a person does with the report's photos: choose a class, page, tick one or a page of them, share the address."""

import csv
import io
import json
import re

import pytest
from report_run import write_report

from browser.hostile import CLASSES, COUNT, NAMES

pytestmark = pytest.mark.browser


@pytest.fixture
def page(open_page):
    return open_page()


@pytest.fixture(scope="module")
def photos(report_file):
    text = report_file.read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)[1])
    return {photo[0]: photo for photo in data["photos"]["list"]}


def shown(page):
    """Names of the photos on the page, in order."""
    return page.eval_on_selector_all(
        "#photo-grid figure.photo", "all => all.map(x => x.querySelector('.id').textContent)"
    )


def label(photos, name, place):
    return next((label for label in photos[name][5] if label[0] == place), None)


def corrections(page):
    with page.expect_download() as download:
        page.click("#download")
    text = download.value.path().read_bytes().decode()
    return {(row["image"], row["class"]): row["present"] for row in csv.DictReader(io.StringIO(text, newline=""))}


def test_photos_come_first_and_are_decoded(page):
    assert shown(page) == NAMES and page.text_content("#photo-count") == f"{COUNT} of {COUNT} photos"
    assert page.evaluate("document.querySelector('main > section').id") == "all-photos"
    decoded = "Promise.all([...document.querySelectorAll('#photo-grid img')].map(x => x.decode())).then(x => x.length)"
    assert page.evaluate(decoded) == COUNT


@pytest.mark.parametrize(("width", "panels"), [(1200, True), (400, False)])
def test_what_is_below_the_photos_is_folded(open_page, width, panels):
    page = open_page(unfold=False, viewport={"width": width, "height": 800})
    opened = "all => all.map(x => x.open)"
    assert set(page.eval_on_selector_all("details.panel", opened)) == {panels}
    assert set(page.eval_on_selector_all("details:not(.panel)", opened)) == {False}
    assert page.locator("#photo-filters").is_visible() is page.locator("table.rows").first.is_visible() is panels
    assert not page.locator("figure.chart").first.is_visible() and not page.locator("figure.card").first.is_visible()
    page.click("nav a[href='#images']")
    page.locator("figure.card").first.wait_for(state="visible")


def test_a_class_alone_has_its_frame_and_its_name(page, photos):
    page.select_option("#photo-class", "0")
    p = [label(photos, name, 0) for name in shown(page)]
    values = [each[1] if each else -1 for each in p]
    assert values == sorted(values, reverse=True)
    for name in shown(page):
        figure = page.locator(f"figure.photo[data-place='{list(photos).index(name)}']")
        box = (label(photos, name, 0) or [0] * 4 + [[]])[4]
        assert figure.locator("svg").count() == figure.locator(".framed").count() == int(bool(box))
        if box:
            rect = figure.locator("rect.edge")
            assert [float(rect.get_attribute(side)) for side in ("x", "y", "width", "height")] == box
            assert figure.locator(".framed").text_content() == CLASSES[0]


@pytest.mark.parametrize("show", ["named", "not", "near", "next", "wrong"])
def test_what_is_shown(page, photos, show):
    page.select_option("#photo-class", "1")
    page.select_option("#photo-show", show)
    keep = {
        "named": lambda photo, own: own is not None and own[2] == 1,
        "not": lambda photo, own: own is None or own[2] == 0,
        "near": lambda photo, own: own is not None and 20 <= own[5] <= 80,
        "next": lambda photo, own: photo[4] > 0,
        "wrong": lambda photo, own: own is not None and own[3] >= 0 and own[3] != own[2],
    }[show]
    expected = {name for name, photo in photos.items() if keep(photo, label(photos, name, 1))}
    assert set(shown(page)) == expected and expected


def test_held_out_photos_and_the_queue_are_marked(page, photos):
    page.select_option("#photo-split", "test")
    page.select_option("#photo-order", "next")
    names = shown(page)
    assert set(names) == {name for name, photo in photos.items() if photo[1]}
    ranks = [photos[name][4] for name in names]
    assert any(ranks) and ranks == sorted(ranks, key=lambda rank: rank or COUNT + 1)
    badges = page.eval_on_selector_all("#photo-grid .badges", "all => all.map(x => x.textContent)")
    assert badges == [f"held outnext {rank}" if rank else "held out" for rank in ranks]


def test_similar_photos_stand_together(page, report_file):
    text = report_file.read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)[1])
    page.select_option("#photo-order", "similar")
    assert [data["photos"]["similar"][NAMES.index(name)] for name in shown(page)] == list(range(COUNT))


def test_filters_stand_in_the_address(open_page, page):
    page.select_option("#photo-class", "2")
    page.select_option("#photo-show", "named")
    address, names = page.evaluate("location.hash"), shown(page)
    assert address == "#photos?class=2&show=named&order=high"
    other = open_page()
    other.evaluate(f"location.hash = {json.dumps(address)}")
    other.wait_for_function("document.getElementById('photo-class').value === '2'")
    assert shown(other) == names
    other.evaluate("location.hash = '#photos?class=99&show=%3Cb%3E&page=-7'")
    other.wait_for_function("document.getElementById('photo-class').value === ''")
    assert shown(other) == NAMES
    other.click("#photo-all")
    assert shown(other) == NAMES


def test_pages(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("cutsew.reporting.photos.PAGE", 8)
    file = write_report(tmp_path / "tiny" / "default")
    page = browser.new_page()
    page.goto(f"{file.as_uri()}#photos?page=2&order=id")
    names = [f"image-{i:03d}" for i in range(20)]
    assert shown(page) == names[8:16] and page.text_content("#page-number") == "page 2 of 3"
    page.click("#page-on")
    assert shown(page) == names[16:] and page.is_disabled("#page-on")
    assert page.evaluate("location.hash") == "#photos?order=id&page=3"
    page.select_option("#photo-class", "0")
    page.click("#page-on")
    page.click("#bulk-yes")
    assert page.text_content("#corrected") == "8 corrections"  # of this page alone
    page.click("#page-back")
    assert page.locator("#photo-grid [aria-pressed='true']").count() == 0
    page.close()


def test_one_tick_and_its_undo(page):
    page.select_option("#photo-class", "0")
    name = shown(page)[2]
    figure = page.locator("figure.photo").nth(2)
    figure.locator("button[data-present='0']").click()
    assert page.evaluate("document.activeElement.dataset.present") == "0"  # the focus stays where it was
    assert figure.locator("button[data-present='0']").get_attribute("aria-pressed") == "true"
    page.keyboard.press("y")
    assert figure.locator("button[data-present='1']").get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    assert corrections(page) == {(name, CLASSES[0]): "1", (shown(page)[3], CLASSES[0]): "0"}
    page.locator("figure.photo").nth(3).locator("button").first.focus()
    page.keyboard.press("u")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("u")
    assert page.text_content("#corrected") == "No corrections"


def test_a_page_is_ticked_at_once_and_the_cards_follow(page, photos):
    page.select_option("#photo-class", "1")
    page.select_option("#photo-show", "named")
    names = shown(page)
    page.click("#bulk-no")
    assert corrections(page) == dict.fromkeys(((name, CLASSES[1]) for name in names), "0")
    pressed = page.eval_on_selector_all(
        "figure.card tr[data-class='1'] button[data-present='0'][aria-pressed='true']", "all => all.length"
    )
    assert pressed == len(names)
    page.click("#bulk-undo")
    assert page.text_content("#corrected") == "No corrections"


def test_a_tick_of_a_card_is_seen_on_the_photo(page):
    card = page.locator("figure.card").first
    name = card.locator(".id b").text_content()
    row = card.locator("tr[data-class]").first
    row.locator("button[data-present='1']").click()
    photo = page.locator("figure.photo", has=page.locator(".id", has_text=name)).first
    assert photo.locator(".chip.yes").count() == 1
    page.select_option("#photo-show", "ticked")
    assert shown(page) == [name]


def test_a_label_leads_to_its_class(page):
    chip = page.locator("#photo-grid .chip").first
    words = chip.text_content()
    chip.click()
    place = int(page.input_value("#photo-class"))
    assert words.startswith(CLASSES[place]) and page.locator("#bulk").is_visible()
