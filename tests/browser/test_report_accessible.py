"""axe-core finds nothing serious in the report, in light and dark, narrow and wide."""

import pytest

from browser.hostile import CLASSES

pytestmark = pytest.mark.browser

SERIOUS = ("serious", "critical")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_no_serious_violation(open_page, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(x => x.open = true)")
    for present in (1, 0):
        page.locator(f"figure.card tbody tr:nth-child({2 - present}) button[data-present='{present}']").first.click()
    page.select_option("#by-class", "1")
    page.select_option("#photo-class", "1")
    page.locator("#photo-grid button[data-present='1']").first.click()
    page.locator("#photo-grid button[data-present='0']").last.click()
    assert page.locator("tr.hit").count() > 0
    result = axe.run(page).response["violations"]
    page.select_option("#photo-class", "")  # the photos with all their labels
    result += axe.run(page).response["violations"]
    reported = [(each["id"], each["impact"], [node["html"][:150] for node in each["nodes"][:3]]) for each in result]
    assert [each for each in reported if each[1] in SERIOUS] == []


def test_reaches_every_control_by_keyboard(open_page):
    page = open_page()
    page.locator("#order").focus()
    reached = set()
    for _ in range(3 * len(CLASSES) + 8):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.className || document.activeElement.textContent"))
    assert {"Show all", "name", "Add"} <= reached


def test_reaches_every_photo_by_keyboard(open_page):
    page = open_page()
    page.locator("#photo-order").focus()
    reached = set()
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.className || document.activeElement.id"))
    assert {"photo-all", "chip "} <= reached
