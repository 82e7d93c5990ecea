"""The docs site: it builds without a warning, its links lead somewhere, and browsers show it from disk."""

import importlib
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow  # a whole site, and a browser that looks at it


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build it; every warning is an error, also one about a reference that leads nowhere.

    In a process of its own, because Sphinx changes the signatures of what it documents.
    """
    place = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", place / "trees"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*build, ROOT / "docs", place / "html"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return place / "html"


class Page(HTMLParser):
    """Anchors, links, what the page loads, and its text outside of code."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads, self.text, self._code = set(), [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        elif tag in ("img", "script", "iframe") and "src" in attrs:
            self.loads.append(attrs["src"])
        elif tag == "link" and attrs.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(attrs["href"])
        if tag in ("pre", "code", "script", "style"):
            self._code.append(tag)

    def handle_endtag(self, tag):
        if self._code and self._code[-1] == tag:
            self._code.pop()

    def handle_data(self, data):
        if not self._code:
            self.text.append(data)


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_there(site, pages):
    for source in (ROOT / "docs").rglob("*.md"):
        assert site / source.relative_to(ROOT / "docs").with_suffix(".html") in pages


def test_links_lead_somewhere(site, pages):
    count = 0
    for path, page in pages.items():
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme == "https", f"{link} in {path.name}"
                assert link in page.links, f"{path.name} loads {link} from a network"
                continue
            target = path.parent / unquote(parts.path) if parts.path else path
            assert target.resolve().is_file(), f"{link} in {path.name}"
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in pages[target.resolve()].ids, f"{link} in {path.name}"
                count += 1
    assert count > 100


def test_public_names_are_on_the_page_of_the_interface(site, pages):
    ids = pages[site / "api.html"].ids
    for module in ("", ".callbacks", ".generators", ".operators", ".optim"):
        name = f"iagan_lightning{module}"
        expected = {f"{name}.{public}" for public in importlib.import_module(name).__all__}
        assert expected <= ids, f"missing: {expected - ids}"


def test_nothing_is_left_unrendered(pages):
    for path, page in pages.items():
        if "_modules" not in path.parts:
            text = "".join(page.text)
            for mark in ("``", ":math:", "$$", "Args:", "Example:", "```"):
                assert mark not in text, f"{mark} in {path.name}: {text[text.index(mark) - 60 :][:120]}"


@pytest.mark.parametrize("width", [1280, 390])
def test_browsers_show_it_from_disk(site, browser, width):
    complaints = []
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    for name in ("index", "method", "api", "operators"):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    page.goto((site / "method.html").as_uri())
    boxes = page.evaluate("[...document.querySelectorAll('math')].map(math => math.getBoundingClientRect().height)")
    assert len(boxes) > 4
    assert all(height > 8 for height in boxes), "formulas are drawn"
    page.goto((site / "search.html").as_uri() + "?q=back_project")
    page.wait_for_selector("#search-results a[href^='api.html']")
    context.close()
    assert not complaints
