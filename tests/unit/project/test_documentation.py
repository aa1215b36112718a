"""The documentation: links lead somewhere, generated pages are in step, quoted messages exist, every page is listed."""

import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "config/**/*.md", "workflow/profiles/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")
CODE = re.compile(r"^(```|~~~).*?^\1|^(?: {4,}\S.*\n)+|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def named(page):
    return page.relative_to(ROOT).as_posix()


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = (re.sub(r"<[^>]+>|[`*]", "", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(page):
    text = page.read_text(encoding="utf-8")
    return [link for link in LINK.findall(CODE.sub("", text)) if not re.match(r"[a-z]+:", link)]


def broken(page):
    """Say what is wrong with a page's internal links."""
    for link in links(page):
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{link}: no such file"
        elif DOCS in page.parents and DOCS not in target.parents:
            yield f"{link}: not in docs/, so the site lacks it"
        elif anchor and anchor not in anchors(target):
            yield f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_internal_links_lead_somewhere(page):
    assert list(broken(page)) == []


def test_broken_links_are_found(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("# A b\n[x](#a-b) [y](#c) [z](none.md) `[code](gone.md)` [w](https://example.org)\n")
    assert list(broken(page)) == ["#c: no such heading", "none.md: no such file"]
    assert len(PAGES) > 25 and sum(len(links(page)) for page in PAGES) > 60


def test_every_page_is_in_the_navigation():
    text = re.sub(r"!!python\S*", "", (ROOT / "mkdocs.yml").read_text())

    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for one in (entry.values() if isinstance(entry, dict) else entry) for page in pages(one)]

    assert sorted(pages(yaml.safe_load(text)["nav"])) == sorted(
        page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")
    )


def test_the_site_fetches_nothing_when_it_is_read():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert site["theme"]["font"] is False and "offline" in site["plugins"]
    (script,) = site["extra"]["polyfills"]  # search from disk needs it, and the theme would fetch it
    assert "iframe-worker" in script and (DOCS / script).is_file()


def test_the_page_of_commands_is_in_step():
    spec = importlib.util.spec_from_file_location("cli_page", ROOT / "tools" / "cli_page.py")
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert writer.page() == (ROOT / writer.PAGE).read_text(), "run: python tools/cli_page.py"


SOURCES = [re.sub(r'"\s*f?"', "", path.read_text()) for path in sorted((ROOT / "src").rglob("*.py"))]
MESSAGES = [
    message
    for row in re.findall(r"^\| (`.*?) \| ", (DOCS / "reference" / "errors.md").read_text(), re.MULTILINE)
    for message in re.findall(r"`([^`]+)`", row)
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_the_page_of_errors_quotes_exists(message):
    parts = [part.strip() for part in message.split("…")]
    assert any(all(part in source for part in parts) for source in SOURCES), message


def test_the_page_of_errors_quotes_many():
    assert len(MESSAGES) > 35
