"""An audit passes only if every package was asked about and has no advisory."""

from typing import Any

import pytest

from tests.support.audit import faults

FINE: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ([FINE], []),
        ([FINE, BAD], ["b 2 has CVE-1, fixed in 3"]),
        ([FINE, SKIPPED], ["1 of 2 packages could not be audited (c"]),
        ([BAD, SKIPPED], ["b 2 has CVE-1", "1 of 2 packages"]),
        ([], ["0 of 0 packages"]),
    ],
)
def test_what_was_not_asked_about_is_a_fault(
    packages: list[dict[str, Any]], words: list[str]
) -> None:
    found = faults("x.lock", {"dependencies": packages})
    assert len(found) == len(words)
    assert all(word in fault for word, fault in zip(words, found, strict=True))
