"""A server with a spool: a database that is away refuses nothing, whoever is killed meanwhile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger import schema
from tests.support.payloads import event
from tests.support.postgres import PrivateServer
from tests.support.server import LedgerServer, run_ledger, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def postgres(postgres_server: PrivateServer) -> PrivateServer:
    schema.migrate(postgres_server.dsn())
    return postgres_server


@pytest.fixture
def server(postgres: PrivateServer, tmp_path: Path) -> Iterator[LedgerServer]:
    settings = {
        "LEDGER_SPOOL_DIR": str(tmp_path / "spool"),
        "LEDGER_SPOOL_AFTER": "1",
        "LEDGER_WORKERS": "2",
    }
    with LedgerServer(postgres.dsn(), tmp_path, settings=settings, project=False) as server:
        yield server


def in_log(postgres: PrivateServer) -> tuple[Any, ...]:
    """Return how many events the log has, its last position, the repeats, and the refusals."""
    with psycopg.connect(postgres.dsn()) as connection:
        row = connection.execute(
            "SELECT count(*), max(position), (SELECT count(*) FROM ledger.repeat_delivery),"
            " (SELECT count(*) FROM ledger.refusal) FROM ledger.event_log"
        ).fetchone()
    assert row
    return row


def send(server: LedgerServer, first: int, number: int) -> set[int]:
    return {
        server.send(event("lab", f"b{nth}")).status_code for nth in range(first, first + number)
    }


def test_nothing_is_refused_while_the_database_is_away_and_the_server_is_killed(
    server: LedgerServer, postgres: PrivateServer, tmp_path: Path
) -> None:
    assert send(server, 0, 10) == {200}
    postgres.kill()
    assert send(server, 10, 20) == {202}
    answer = server.send(event("lab", "b30"))
    assert (answer.status_code, answer.json()) == (202, {"outcome": "spooled"})
    assert server.anonymous.get("/health/ready").status_code == 200
    metrics = server.anonymous.get("/metrics").text
    assert "ledger_spool_deliveries 21.0" in metrics
    assert 'ledger_deliveries_total{outcome="spooled"} 21.0' in metrics
    server.kill_server()
    server.start_server()  # without the database
    assert send(server, 31, 10) == {202}
    postgres.start()
    wait_until(lambda: in_log(postgres)[0] == 41, "all are in the log")
    assert in_log(postgres) == (41, 41, 0, 0)
    assert send(server, 41, 5) == {200}
    # Each delivery is counted once, when its sender was answered.
    metrics = server.anonymous.get("/metrics").text
    assert 'ledger_deliveries_total{outcome="recorded"} 5.0' in metrics
    folders = tmp_path / "spool"
    wait_until(lambda: len(list(folders.glob("worker-*"))) == 2, "the killed ones' are removed")
    assert server.run("status", "--json").returncode == 0
    assert b"no delivery waits on disk" in server.run("status").stdout


def test_a_spool_that_is_too_small_for_a_body_is_refused_at_the_start(
    server: LedgerServer,
) -> None:
    settings = {**server.settings, "LEDGER_SPOOL_MAX_BYTES": "1000000"}
    ended = run_ledger("serve", settings=settings)
    assert ended.returncode == 1
    assert b"LEDGER_SPOOL_MAX_BYTES is 1000000, too little" in ended.stderr
