"""Servers that the tests of a module share."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger import schema
from tests.support.postgres import database_of, new_database
from tests.support.server import LedgerServer


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
