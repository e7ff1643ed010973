"""Servers that the tests of a module share, and the histories they are sent."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import LedgerServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder as slow: they start servers."""
    for item in items:
        if "acceptance" in item.path.parts:
            item.add_marker(pytest.mark.slow)


# A failed assertion in these tells its values, as one in a test does.
pytest.register_assert_rewrite("tests.support.answers", "tests.support.commands")


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
