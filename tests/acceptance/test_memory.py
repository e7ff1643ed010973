"""One bill of many large events: what each process takes at its peak."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import Connection

from ledger.eventlog.append import append
from ledger.postgres.connect import connect
from tests.support.histories import body, delivery
from tests.support.memory import MEGABYTE, peak_of_command, peak_of_process
from tests.support.server import LedgerServer

EVENTS = 60
"""Of a megabyte each: in a process that held all of them, more than the bound."""

BOUND = 160 * MEGABYTE
"""Peak of a whole process, of which the program itself takes about 60 MB."""

PARQUET = 45 * MEGABYTE
"""What the library that reads and writes Parquet takes by itself."""

LINES = 60 * MEGABYTE
"""What a batch takes as rows and as lines at once."""


def fill(connection: Connection) -> None:
    pad = b"x" * MEGABYTE
    for first in range(0, EVENTS, 20):
        events = [
            body(at=number, tests={"T1": "completed"}).replace(
                b'"data"', b'"more":"%d%b","data"' % (number, pad[:-500])
            )
            for number in range(first, first + 20)
        ]
        append(connection, [delivery(event) for event in events])


@pytest.fixture(scope="module")
def filled(module_database_url: str) -> str:
    with connect(module_database_url, "test") as connection:
        fill(connection)
    return module_database_url


@pytest.fixture(scope="module")
def server(filled: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerServer]:
    with LedgerServer(filled, tmp_path_factory.mktemp("memory")) as started:
        started.settle()
        yield started


def test_the_projector(server: LedgerServer) -> None:
    assert server.projector
    assert peak_of_process(server.projector.pid) < BOUND
    assert server.get("/v1/labs/L/bills/B").json()["events"] == EVENTS


def test_the_server_that_lists_and_folds_the_bill(server: LedgerServer) -> None:
    assert len(server.items("/v1/labs/L/bills/B/events", limit=1000)) == EVENTS
    later = "2030-01-01T00:00:00Z"
    for query in ({"known_at": later}, {"as_of": later}):
        assert server.get("/v1/labs/L/bills/B", **query).json()["events"] == EVENTS
    assert server.get("/v1/labs/L/bills/B/findings").status_code == 200
    assert peak_of_process(server.serve.pid) < BOUND


def test_commands(server: LedgerServer, tmp_path: Path) -> None:
    exported = tmp_path / "export.jsonl"
    for command in (
        ("bill", "L", "B"),
        ("rebuild", "--bill", "L", "B"),
        ("rebuild", "--yes", "--processes", "1"),
        ("verify", "--processes", "1"),
        ("events", "--limit", "1000"),
        ("export", "--output", str(exported)),
        ("import", str(exported)),
    ):
        assert peak_of_command(*command, settings=server.settings) < BOUND, command


def test_commands_of_archives(server: LedgerServer, tmp_path: Path) -> None:
    assert peak_of_command("seal", settings=server.settings) < BOUND
    for command in (
        ("archive", str(tmp_path)),
        ("archive", str(tmp_path), "--check"),
        ("rebuild", "--yes", "--processes", "1", "--from", str(tmp_path)),
        ("import", "--archive", str(tmp_path)),
    ):
        bound = BOUND + PARQUET + (LINES if command[0] == "import" else 0)
        assert peak_of_command(*command, settings=server.settings) < bound, command
