"""Loss windows travel with an export: the same in the log that it is imported into, and once."""

import io
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg import Connection

from ledger.eventlog.append import append
from ledger.eventlog.export_lines import export_lines
from ledger.eventlog.import_counts import Imported
from ledger.eventlog.import_events import import_events, preview_import
from ledger.eventlog.import_files import ImportFile
from ledger.eventlog.import_values import Options
from ledger.eventlog.liveness_transfer import export_records, read_record
from ledger.model.operators import Operator
from ledger.postgres.connect import connect
from tests.support.histories import body, delivery
from tests.support.postgres import ready_database
from tests.support.server import run_ledger
from tests.support.sessions import drain

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
FIRST, SECOND = uuid.UUID(int=1), uuid.UUID(int=2)


@pytest.fixture
def other_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    with ready_database(postgres_url, migrated_template) as url:
        yield url


@pytest.fixture
def other(other_url: str) -> Iterator[Connection]:
    with connect(other_url, "test") as connection:
        yield connection


@pytest.fixture
def filled(service: Connection) -> Connection:
    """Give a log with an outage of an hour, and one with refused deliveries."""
    alive = [(FIRST, NOW - 9 * HOUR, NOW - 6 * HOUR), (SECOND, NOW - 5 * HOUR, NOW)]
    for row in alive:
        service.execute("INSERT INTO ledger.liveness VALUES (%s, %s, %s)", row)
    refused = (SECOND, 1, NOW - 3 * HOUR, NOW - 2 * HOUR, 7)
    service.execute("INSERT INTO ledger.refusal VALUES (%s, %s, %s, %s, %s)", refused)
    for hours in (8, 1):
        received = NOW - hours * HOUR
        at = delivery(body(at=hours))
        append(service, [type(at)(at.body, received, at.source, at.columns)])
    drain(service)
    return service


def windows(connection: Connection) -> list[tuple[object, ...]]:
    query = "SELECT * FROM ledger.loss_window WHERE begins_at < %s ORDER BY 1"
    return connection.execute(query, (NOW,)).fetchall()  # another grows while the tests run


def taken(connection: Connection, content: bytes, *, exports: bool = True) -> Imported:
    options = Options(by=Operator("ann"), exports=exports)
    file = ImportFile(io.BytesIO(content))
    return import_events(connection, file, options, on_progress=lambda _: None)


def exported(connection: Connection) -> bytes:
    return b"".join([*export_lines(connection), *export_records(connection)])


def test_an_imported_log_has_the_same_loss_windows(filled: Connection, other: Connection) -> None:
    content = exported(filled)
    assert (taken(other, content).recorded, len(windows(filled))) == (2, 2)
    drain(other)
    assert windows(other) == windows(filled)
    assert exported(other) == content


def test_each_record_is_stored_once_and_later_news_are_added(
    filled: Connection, other: Connection
) -> None:
    content = exported(filled)
    preview = preview_import(
        other, ImportFile(io.BytesIO(content)), Options(by=Operator("ann"), exports=True)
    )
    assert preview.liveness_records == 3
    assert windows(other) == []
    assert taken(other, content).liveness_records == 3
    again = taken(other, content)
    assert (again.liveness_records, again.duplicate, again.import_id) == (0, 2, None)
    filled.execute("UPDATE ledger.liveness SET alive_until = alive_until + interval '1 minute'")
    filled.execute("UPDATE ledger.refusal SET deliveries = 8")
    newer = exported(filled)
    assert taken(other, newer).liveness_records == 3
    assert taken(other, content).liveness_records == 0, "an older export takes nothing back"
    assert exported(other) == newer


def test_an_export_of_records_alone_is_accepted(filled: Connection, other: Connection) -> None:
    imported = taken(other, b"".join(export_records(filled)))
    assert (imported.liveness_records, imported.unreadable) == (3, 0)


def test_from_elsewhere_records_are_left_out(filled: Connection, other: Connection) -> None:
    imported = taken(other, exported(filled), exports=False)
    assert (imported.recorded, imported.liveness_records, imported.unreadable) == (2, 0, 0)
    assert list(export_records(other)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"alive_until": "2000-01-01T00:00:00Z"},
        {"alive_until": "2999-01-01T00:00:00Z"},
        {"alive_from": "0001-01-01T00:00:00Z"},
        {"alive_from": "2024-01-01T00:00:00"},
        {"alive_from": "2024-01-01T00:00:00+16:00"},
        {"alive_until": "2024-01-02T00:00:00-16:00"},
        {"instance": "none"},
        {"more": 1},
    ],
)
def test_what_is_no_record_is_not_taken_for_one(change: dict[str, object]) -> None:
    record = {
        "instance": str(FIRST),
        "alive_from": "2024-01-01T00:00:00Z",
        "alive_until": "2024-01-02T00:00:00Z",
    }
    assert read_record(json.dumps(record).encode())
    assert read_record(json.dumps({**record, **change}).encode()) is None


def test_the_commands_carry_them(
    filled: Connection, database_url: str, other: Connection, other_url: str, tmp_path: Path
) -> None:
    file = str(tmp_path / "export.jsonl.gz")
    done = run_ledger("export", "--output", file, settings={"LEDGER_DATABASE_URL": database_url})
    assert b"2 events and 3 records of liveness written" in done.stderr
    there = {"LEDGER_DATABASE_URL": other_url}
    dry = run_ledger("import", "--dry-run", file, settings=there)
    assert b"new in it: 3 records of when receivers were alive" in dry.stdout
    assert list(export_records(other)) == []
    done = run_ledger("import", file, settings=there)
    assert (done.returncode, b"new in it: 3 records" in done.stdout) == (0, True)
    assert windows(other) == windows(filled)
    part = run_ledger("export", "--lab", "L", settings=there)
    assert b'"instance"' not in part.stdout
