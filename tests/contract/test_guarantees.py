"""Each test that docs/guarantees.md names for a promise exists, and each promise names one."""

import re

from tests.support.server import ROOT

DOCUMENT = (ROOT / "docs" / "guarantees.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCUMENT.splitlines()
    if line.startswith("| ") and not line.startswith("| Promise |")
]


def test_each_promise_names_a_test_and_each_named_test_exists() -> None:
    assert len(ROWS) > 20
    for promise, tests, _ in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
        assert named, promise
        for file, name in named:
            assert f"\ndef {name}(" in (ROOT / file).read_text(), name


def test_every_test_that_is_named_is_named_in_this_form() -> None:
    assert DOCUMENT.count("::test_") == len(re.findall(r"`tests/[\w/]+\.py::test_\w+`", DOCUMENT))
