"""Hooks of MkDocs: the site is made of the files as they lie in the repository.

A page may link to whatever the repository holds, so that the links also work where people read the
files themselves. A file outside docs/ that a page links to joins the site below `repository/`;
README.md is the first page. The tests that docs/guarantees.md names are shown on a page of its own.
"""

import ast
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
OUTSIDE = "repository/"
TESTS_PAGE = "guarantees-tests.md"

_LINK = re.compile(r"(\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)#:\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`(tests/([\w/]+)\.py)::(test_\w+)`")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages that the navigation does not name under their own heading."""
    named = list(_named(config.nav))
    if twice := {page for page in named if named.count(page) > 1}:
        message = f"the navigation of mkdocs.yml names a page twice: {', '.join(sorted(twice))}"
        raise PluginError(message)
    folder = Path(config.docs_dir)
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    more = [page for page in pages if page not in named]
    config.nav = [*(config.nav or []), *([{"More": more}] if more else [])]
    return config


def _named(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for part in nav.values():
            yield from _named(part)
    elif isinstance(nav, list):
        for part in nav:
            yield from _named(part)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first page, the page of tests, and each file that a page links to."""
    files.append(File.generated(config, "index.md", content=_read("README.md")))
    files.append(File.generated(config, TESTS_PAGE, content=_tests_page()))
    waiting = ["README.md", *(DOCS + page.src_uri for page in files.documentation_pages())]
    known = set(waiting)
    while waiting:
        path = waiting.pop()
        for target in _targets(path):
            if target in known or target.startswith(DOCS) or not (ROOT / target).is_file():
                continue
            known.add(target)
            added = File.generated(config, _place(target), abs_src_path=str(ROOT / target))
            added.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(added)
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a page those of the site."""
    del config, files
    place = page.file.src_uri
    path = _path(place)
    if path == "docs/guarantees.md":
        markdown = _TEST.sub(_link_to_test, markdown)
    return _outside_code(markdown, lambda text: _LINK.sub(lambda link: _moved(link, path), text))


def _moved(link: re.Match[str], path: str) -> str:
    label, address, anchor = link[1], link[2], link[3] or ""
    target = _resolved(path, address)
    if path != "README.md" and target.startswith(DOCS) and path.startswith(DOCS):
        return link[0]
    if not (ROOT / target).is_file():  # a folder, or a page that only the site has
        return link[0] if not (ROOT / target).exists() else label[1:-1]
    start = posixpath.dirname(_place(path)) or "."
    return f"{label}({posixpath.relpath(_place(target), start)}{anchor})"


def _place(path: str) -> str:
    """Return where a file of the repository stands in the site."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix(DOCS) if path.startswith(DOCS) else OUTSIDE + path


def _path(place: str) -> str:
    """Return which file of the repository stands there."""
    if place == "index.md":
        return "README.md"
    return place.removeprefix(OUTSIDE) if place.startswith(OUTSIDE) else DOCS + place


def _targets(path: str) -> Iterator[str]:
    if (ROOT / path).is_file():
        for link in _LINK.finditer(_FENCE.sub("", _read(path))):
            yield _resolved(path, link[2])


def _resolved(path: str, address: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), address))


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    parts = _FENCE.split(markdown)
    return "".join(part if place % 2 else change(part) for place, part in enumerate(parts))


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _tests_page() -> str:
    parts = ["# The tests of the guarantees\n", "[Guarantees](guarantees.md) names these.\n"]
    found = {each[0]: each for each in _TEST.finditer(_read("docs/guarantees.md"))}
    for test in found.values():
        parts.append(f"## `{test[3]}` {{ #{_anchor(test)} }}\n")
        parts.append(f"`{test[1]}`\n")
        parts.append(f"```python\n{_source(test[1], test[3])}\n```\n")
    return "\n".join(parts)


def _link_to_test(test: re.Match[str]) -> str:
    return f"[`{test[3]}`]({TESTS_PAGE}#{_anchor(test)})"


def _anchor(test: re.Match[str]) -> str:
    return f"{test[2].replace('/', '-')}-{test[3]}"


def _source(path: str, name: str) -> str:
    text = _read(path)
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    message = f"docs/guarantees.md names {path}::{name}, which does not exist"
    raise LookupError(message)
