"""`ledger migrate`, and what the commands say of a database that is not ready."""

import json

import psycopg
import pytest

from tests.support.commands import assert_sentence, settings_of
from tests.support.server import (
    run_ledger,
)

NEEDS_SCHEMA = ("serve", "project", "rebuild", "verify")


@pytest.mark.parametrize("command", NEEDS_SCHEMA)
def test_a_database_that_was_not_prepared_is_a_sentence(
    empty_database_url: str, command: str
) -> None:
    done = run_ledger(command, settings=settings_of(empty_database_url), timeout=20)
    assert_sentence(done, "ledger migrate")


def test_an_old_schema_is_a_sentence(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE ledger.schema_version SET version_num = '0000'")
    for command in ("serve", "project"):
        done = run_ledger(command, settings=settings_of(database_url), timeout=20)
        assert_sentence(done, "ledger migrate")


def test_a_newer_schema_is_a_sentence(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE ledger.schema_version SET version_num = '9999'")
    for command in ("project", "status"):  # a server goes on: see test_deploy.py
        done = run_ledger(command, settings=settings_of(database_url), timeout=20)
        assert_sentence(done, "newer")


def test_migrate_prepares_an_empty_database_and_may_run_twice(empty_database_url: str) -> None:
    settings = settings_of(empty_database_url)
    for _ in range(2):
        done = run_ledger("migrate", settings=settings)
        assert done.returncode == 0, done.stderr
    status = json.loads(run_ledger("status", "--json", settings=settings).stdout)
    assert (status["head"], status["position"], status["parked"]) == (0, 0, 0)


def test_migrate_tells_what_it_would_do_and_does_not(empty_database_url: str) -> None:
    settings = settings_of(empty_database_url)
    assert run_ledger("migrate", "--dry-run", settings=settings).returncode == 0
    assert_sentence(run_ledger("status", settings=settings), "ledger migrate")


def test_a_database_that_is_away_is_a_sentence() -> None:
    settings = settings_of("postgresql://u:geheim@127.0.0.1:1/x")
    for command in ("migrate", "verify"):
        said = assert_sentence(run_ledger(command, settings=settings))
        assert "geheim" not in said
        assert "failed: Connection refused. Check LEDGER_DATABASE_URL" in said
