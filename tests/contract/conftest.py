"""A server for the contract tests."""

from collections.abc import Iterator

import pytest

from tests.support.server import LedgerServer

# What is missing is overdue at once.
SETTINGS = {
    "LEDGER_MAX_BODY": "5000",
    "LEDGER_RETRY_COUNT": "0",
    "LEDGER_RETRY_TIMEOUT": "0",
}


@pytest.fixture(scope="module")
def server(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    """Give a server with a projector that the tests of a module share."""
    folder = tmp_path_factory.mktemp("contract")
    with LedgerServer(module_database_url, folder, settings=SETTINGS) as started:
        yield started
