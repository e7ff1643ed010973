"""Fixtures of the tests that need a database."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection, sql

from ledger.postgres.connect import connect
from tests.support.postgres import database_of, new_database


@pytest.fixture
def database_url(database_url: str) -> str:
    """URL of a migrated database of the test's own, with the rights that a clone loses."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO ledger_service").format(
                sql.Identifier(connection.info.dbname)
            )
        )
    return database_url


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


@pytest.fixture(scope="module")
def shared_database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """URL of a migrated database for all tests of a module that undo what they do."""
    with new_database(postgres_url, template=migrated_template) as name:
        yield database_of(postgres_url, name)


@pytest.fixture
def undone(shared_database_url: str) -> Iterator[Connection]:
    """Give a superuser's connection in a transaction that is rolled back after the test."""
    with (
        psycopg.connect(shared_database_url, autocommit=True) as connection,
        connection.transaction(force_rollback=True),
    ):
        yield connection
