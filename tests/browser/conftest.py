"""The report in a real browser: Debian's Chromium, or the one that `playwright install chromium` fetches."""

import re
import shutil

import pytest
from report_run import write_maps, write_report, write_thresholds

from browser.hostile import CLASSES, NAMES

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    result = next(filter(None, map(shutil.which, BROWSERS)), None)
    with api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=result)
        except api.Error as error:
            pytest.skip(f"no Chromium can be started here: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(scope="session")
def report_file(tmp_path_factory):
    def more(folder):
        maps = write_maps(folder / "maps.zarr", NAMES[:3], CLASSES[:3], NAMES[:14])
        return {"thresholds": write_thresholds(folder / "thresholds.csv", CLASSES), "maps": maps}

    folder = tmp_path_factory.mktemp("results") / "demo" / "default"
    return write_report(folder, classes=CLASSES, names=NAMES, train=14, test=10, crops=True, more=more, size=(240, 180))


@pytest.fixture
def open_page(browser, report_file):
    """Open the report; at the end nothing may have been complained about or asked for."""
    contexts, faults = [], []

    def requested(request):
        if not re.match(r"data:|blob:", request.url) and request.url != report_file.as_uri():
            faults.append(f"asked for {request.url}")

    def start(script=None, unfold=True, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", requested)
        page.goto(report_file.as_uri())
        if unfold:
            page.evaluate("document.querySelectorAll('details').forEach(x => x.open = true)")
        return page

    yield start
    for context in contexts:
        context.close()
    assert not faults
