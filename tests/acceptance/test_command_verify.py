"""`ledger verify`: the proof, and the first difference it names."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.commands import settings_of
from tests.support.payloads import history
from tests.support.postgres import ready_database
from tests.support.server import (
    run_ledger,
)


@pytest.fixture(scope="module")
def prepared_database(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """Name of a database with 30 bills, folded, to be cloned."""
    with ready_database(postgres_url, migrated_template) as url:
        settings = settings_of(url)
        run_ledger("import", "-", settings=settings, stdin=history("lab", 30))
        done = run_ledger("rebuild", "--yes", "--processes", "1", settings=settings)
        assert done.returncode == 0, done.stderr
        yield url.rpartition("/")[2]


def test_verify_proves_an_empty_log(database_url: str) -> None:
    assert run_ledger("verify", settings=settings_of(database_url)).returncode == 0


def tampered(url: str, statement: str) -> None:
    """Change what only a superuser who takes the walls down can change."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger.event_log DISABLE TRIGGER event_log_is_append_only")
        connection.execute(statement.encode())
        connection.execute(
            "ALTER TABLE ledger.event_log ENABLE ALWAYS TRIGGER event_log_is_append_only"
        )


@pytest.mark.one_server("the damage is done by statements that a cluster refuses")
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "UPDATE state.bill SET state = 'deleted' WHERE bill_id IN ('b00004', 'b00002')",
            ["b00002", "state"],
        ),
        ("DELETE FROM state.bill WHERE bill_id = 'b00003'", ["b00003", "missing"]),
        (
            (
                "INSERT INTO state.missing_event SELECT lab_id, 'ghost', event_type, test_id,"
                " certainty, count, integrator_id, evidence_position, evidence_event_type,"
                " evidence_event_time, evidence_received_at, decided FROM state.missing_event"
                " LIMIT 1"
            ),
            ["ghost", "should not be there"],
        ),
        (
            (
                "UPDATE ledger.event_log SET body = convert_to(replace(convert_from(body, 'UTF8'),"
                " 'b00001', 'b00009'), 'UTF8') WHERE position IN (3, 4)"
            ),
            ["digest", "position 3"],
        ),
        (
            "UPDATE ledger.event_log SET event_time = '2024-01-01Z' WHERE position = 5",
            ["event_time", "position 5"],
        ),
        ("DELETE FROM ledger.event_log WHERE position IN (7, 9)", ["position 7", "missing"]),
        ("UPDATE ledger.event_log SET position = 8 WHERE position = 9", ["position 8", "twice"]),
        (
            "DELETE FROM ledger.event_log WHERE position = 65",
            ["position 65", "64"],
        ),
    ],
)
def test_verify_names_the_first_difference_and_exits_with_3(
    postgres_url: str, prepared_database: str, statement: str, words: list[str]
) -> None:
    with ready_database(postgres_url, prepared_database) as url:
        tampered(url, statement)
        done = run_ledger("verify", "--processes", "1", settings=settings_of(url))
    assert done.returncode == 3, done.stdout + done.stderr
    for word in words:
        assert word in done.stdout.decode()
