"""Fixtures of the tests that need a database."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection

from ledger.postgres.connect import connect


@pytest.fixture
def service(database_url: str) -> Iterator[Connection]:
    """Give a connection as Ledger itself makes them, in the service's role."""
    with connect(database_url, "test") as connection:
        yield connection


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    """Give a superuser's connection, which may do what Ledger never would."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def undone(module_database_url: str) -> Iterator[Connection]:
    """Give a superuser's connection in a transaction that is rolled back after the test."""
    with (
        psycopg.connect(module_database_url, autocommit=True) as connection,
        connection.transaction(force_rollback=True),
    ):
        yield connection
