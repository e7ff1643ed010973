"""The site builds without a warning and loads nothing from elsewhere; what is drawn is current."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs.draw_concepts import FOLDER as PICTURES
from docs.draw_concepts import pictures
from docs.reference_pages import FOLDER as REFERENCE
from docs.reference_pages import pages
from tests.support.server import ROOT

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""The attributes by which an element loads something while a page is shown."""


class Loaded(HTMLParser):
    """Collects what a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(LOADING.get(tag, ""), None) or ""
        if re.match(r"(https?:)?//", address):
            self.found.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    found = {}
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        loaded = Loaded()
        loaded.feed(text)
        if loaded.found or "fonts.googleapis" in text:
            found[page.name] = loaded.found
        assert 'class="mermaid"' not in text, "the theme loads what draws such a diagram"
    assert found == {}


@pytest.mark.slow
def test_each_promise_leads_to_the_source_of_its_test(site: Path) -> None:
    promises = (site / "guarantees.html").read_text(encoding="utf-8")
    tests = (site / "guarantees-tests.html").read_text(encoding="utf-8")
    named = set(re.findall(r'href="guarantees-tests\.html#([\w-]+)"', promises))
    assert len(named) > 40
    assert {anchor for anchor in named if f'id="{anchor}"' not in tests} == set()
    written = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    assert len(named) == len(set(re.findall(r"`(tests/[\w/]+\.py::test_\w+)`", written)))


@pytest.mark.parametrize("name", sorted(pictures()))
def test_the_picture_is_what_the_functions_draw(name: str) -> None:
    drawn = (PICTURES / name).read_text(encoding="utf-8")
    assert drawn == pictures()[name], "a rule has changed: `make pictures`, then read its page"


def test_no_picture_is_left_over() -> None:
    assert {path.name for path in PICTURES.glob("*.svg")} == {*pictures()}


def test_the_reference_is_that_of_the_code() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")}
    written.pop("metrics.md")  # of a running server
    generated = pages()
    assert {*written} == {*generated}
    old = [name for name, text in generated.items() if written[name] != text]
    assert old == [], "run `make reference`"
