"""A long table in the report shows a page of rows at a time."""

import pytest
from report_run import write_report, write_thresholds

from cutsew.reporting.page_tables import PAGE_ROWS

pytestmark = pytest.mark.browser

CLASSES = [f"class {c:03d}" for c in range(2 * PAGE_ROWS + 20)]


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    def more(folder):
        return {"thresholds": write_thresholds(folder / "thresholds.csv", CLASSES)}

    return write_report(tmp_path_factory.mktemp("many") / "demo" / "default", classes=CLASSES, more=more)


def test_rows_page_and_are_found(open_page):
    page = open_page()
    region = page.locator("[data-rows]")
    bar = page.get_by_role("group", name="Rows")
    assert region.count() == bar.count() == 1  # the other tables are short

    def shown():
        return region.locator("tbody tr:visible th").all_text_contents()

    assert shown() == CLASSES[:PAGE_ROWS]
    assert bar.get_by_role("button", name="Previous").is_disabled()
    bar.get_by_role("button", name="Next").click()
    bar.get_by_role("button", name="Next").click()
    assert shown() == CLASSES[2 * PAGE_ROWS :]
    assert bar.get_by_role("button", name="Next").is_disabled()
    assert bar.get_by_role("status").text_content() == "120 rows, page 3 of 3"
    bar.get_by_role("searchbox").fill("CLASS 07")
    assert shown() == CLASSES[70:80]
    bar.get_by_role("searchbox").fill("nothing")
    assert shown() == []
    bar.get_by_role("searchbox").fill("")
    bar.get_by_role("button", name="Next").click()
    assert shown() == CLASSES[PAGE_ROWS : 2 * PAGE_ROWS]
