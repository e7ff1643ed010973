"""docs/rules.md holds what the code cites, and every reason and finding that there is."""

import re
from pathlib import Path

import pytest

from ledger.event_types import EVENT_TYPES
from ledger.model.findings import RULES
from ledger.model.unreadable import REASONS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
SECTIONS = {
    section.partition("\n")[0]: section
    for section in re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)[1:]
}
CITATION = re.compile(r'docs/rules\.md,((?:\s+(?:and\s+)?"[^"]+",?)+)')
MODULES = sorted((ROOT / "ledger").rglob("*.py"))


def cited(text: str) -> list[str]:
    """Return the headings that a module cites."""
    return [
        " ".join(heading.split())
        for headings in CITATION.findall(text)
        for heading in re.findall(r'"([^"]+)"', headings)
    ]


def codes(section: str) -> list[str]:
    """Return the codes in the first column of a section's tables."""
    return re.findall(r"^\| `([a-z_]+)` \|", SECTIONS[section], re.MULTILINE)


def test_every_heading_that_the_code_cites_exists() -> None:
    found = {(module.name, heading) for module in MODULES for heading in cited(module.read_text())}
    assert found, "no module cites docs/rules.md any more; this test must follow the citations"
    assert {(module, heading) for module, heading in found if heading not in SECTIONS} == set()


@pytest.mark.parametrize("module", sorted((ROOT / "ledger" / "model").glob("[!_j]*.py")))
def test_every_module_of_the_model_cites_its_rules(module: Path) -> None:
    assert cited(module.read_text())


def test_every_section_is_cited_by_the_code() -> None:
    found = {heading for module in MODULES for heading in cited(module.read_text())}
    assert set(SECTIONS) - found == {"Expected bills"}  # decided by a query, not by the model


def test_every_finding_is_described_in_the_order_of_the_codes() -> None:
    rules = [rule.__name__.removeprefix("_") for rule in RULES]
    assert rules == sorted(rules)
    assert codes("Findings") == rules


def test_every_reason_is_described() -> None:
    assert [code for code in codes("Readable events") if code in REASONS] == list(REASONS)


def test_the_document_lists_the_event_types_by_rank() -> None:
    ranks = re.findall(r"(\d) for\s+`([a-z.]+)`", SECTIONS["Order of events"])
    assert ranks == [(str(rank), event_type) for rank, event_type in enumerate(EVENT_TYPES)]
