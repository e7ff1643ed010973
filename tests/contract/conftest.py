"""A server for the contract tests."""

from collections.abc import Iterator

import pytest

from tests.support.postgres import database_of, new_database
from tests.support.server import LedgerServer

# What is missing is overdue at once.
SETTINGS = {
    "LEDGER_MAX_BODY": "5000",
    "LEDGER_RETRY_COUNT": "0",
    "LEDGER_RETRY_TIMEOUT": "0",
}


@pytest.fixture(scope="module")
def server(
    postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    """Give a server with a projector that the tests of a module share."""
    folder = tmp_path_factory.mktemp("contract")
    with (
        new_database(postgres_url, template=migrated_template) as name,
        LedgerServer(database_of(postgres_url, name), folder, settings=SETTINGS) as started,
    ):
        yield started
