"""Servers that the tests of a module share, and the histories they are sent."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger import schema
from tests.support.payloads import BASE, Payload, event
from tests.support.postgres import database_of, new_database
from tests.support.server import LedgerServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder as slow: they start servers."""
    for item in items:
        if "acceptance" in item.path.parts:
            item.add_marker(pytest.mark.slow)


# A failed assertion in these tells its values, as one in a test does.
pytest.register_assert_rewrite("tests.support.answers", "tests.support.commands")


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """URL of a migrated database that the tests of a module share."""
    with ready_database(postgres_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """URL of a migrated database of the test's own."""
    with ready_database(postgres_url, migrated_template) as url:
        yield url


@contextmanager
def ready_database(server: str, template: str) -> Iterator[str]:
    """Clone the template. The rights on a database are not cloned; migrating gives them again."""
    with new_database(server, template=template) as name:
        url = database_of(server, name)
        schema.migrate(url)
        yield url


@pytest.fixture(scope="module")
def server(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    """Give a server with a projector that the tests of a module share."""
    with LedgerServer(module_database_url, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def own_server(database_url: str, tmp_path: Path) -> Iterator[LedgerServer]:
    """Give a server with a projector and a database of the test's own."""
    with LedgerServer(database_url, tmp_path) as started:
        yield started


@pytest.fixture
def lab() -> str:
    """Give the id of a lab that no other test uses."""
    return f"lab_{uuid.uuid4().hex[:12]}"


def whole_day(lab: str) -> list[Payload]:
    """Make the history of the contract's example: two tests, all is completed."""
    both: dict[str, str | None] = {"test_001": "completed", "test_002": "completed"}
    url = "https://reports.example/bill_12345"
    return [
        event(lab, "bill_12345", tests={"test_001": None, "test_002": "pending"}, integrator="x"),
        event(lab, "bill_12345", "report.completed", at=BASE + 60, tests={"test_001": "completed"}),
        event(lab, "bill_12345", "report.completed", at=BASE + 120, tests=both),
        event(
            lab, "bill_12345", "bill.completed", at=BASE + 180, tests=both, status="completed",
            url=url, integrator="x",
        ),
    ]  # fmt: skip


def lines(*payloads: Payload) -> bytes:
    return b"".join(json.dumps(payload).encode() + b"\n" for payload in payloads)


def history(lab: str, count: int) -> bytes:
    """Make events of bills, of which some are open, some complete, some lack events."""
    tests: dict[str, str | None] = {"t1": "completed", "t2": "completed"}
    payloads: list[Payload] = []
    for number in range(count):
        bill = f"b{number:05}"
        payloads.append(event(lab, bill, tests={"t1": None, "t2": None}, integrator=f"i{number}"))
        if number % 2:
            payloads.append(event(lab, bill, "report.completed", at=BASE + 5, tests={"t1": "x"}))
        if number % 3:
            payloads.append(event(lab, bill, "bill.completed", at=BASE + 9, tests=tests))
    return lines(*payloads)
