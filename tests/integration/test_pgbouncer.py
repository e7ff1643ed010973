"""Behind pgbouncer: refused where it lends out sessions, at home where it does not."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import PoolerError
from ledger.eventlog import read
from ledger.postgres import connect as connect_module
from ledger.postgres.connect import connect
from tests.support import pgbouncer
from tests.support.payloads import event
from tests.support.server import LedgerServer, run_ledger
from tests.support.sessions import one

pytestmark = pytest.mark.slow

SENTENCE = "Set pool_mode = session"


@pytest.fixture
def transactions(database_url: str, tmp_path: Path) -> Iterator[str]:
    with pgbouncer.pgbouncer(database_url, "transaction", tmp_path) as url:
        yield url


@pytest.fixture
def no_locks_or_roles(owner: Connection) -> Iterator[None]:
    """Check that nothing of ours is left in the pool."""
    yield
    query = """
        SELECT count(*) FROM pg_locks l
        WHERE l.locktype = 'advisory'
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
    assert one(owner, query) == 0


@pytest.mark.usefixtures("no_locks_or_roles")
def test_every_command_says_that_the_pooler_lends_out_sessions(transactions: str) -> None:
    settings = {
        "LEDGER_DATABASE_URL": transactions,
        "LEDGER_WEBHOOK_TOKENS": "a-token-that-is-long-enough",
    }
    for command in (["serve"], ["project"], ["migrate", "--yes"], ["status"], ["rebuild", "--yes"]):
        done = run_ledger(*command, settings=settings)
        assert (done.returncode, SENTENCE in done.stderr.decode()) == (1, True), command
        assert b"Traceback" not in done.stderr
    with psycopg.connect(transactions) as other:
        assert one(other, "SELECT current_setting('role')") == "none"


@pytest.mark.usefixtures("no_locks_or_roles")
@pytest.mark.parametrize("servers", [1, 2, 20])
def test_it_is_noticed_however_busy_the_pool_is(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: int
) -> None:
    monkeypatch.setattr(connect_module, "_SESSIONS_ARE_OURS", set())
    ended = threading.Event()

    def be_busy(url: str) -> None:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            while not ended.is_set():
                connection.execute("SELECT pg_sleep(0.001)")

    with pgbouncer.pgbouncer(database_url, "transaction", tmp_path, servers=servers) as url:
        others = [threading.Thread(target=be_busy, args=(url,)) for _ in range(3)]
        for other in others:
            other.start()
        try:
            for _ in range(20):
                with pytest.raises(PoolerError, match=SENTENCE):
                    connect(url, "test")
        finally:
            ended.set()
            for other in others:
                other.join()


def test_a_pooler_of_statements_is_refused(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect_module, "_SESSIONS_ARE_OURS", set())
    with (
        pgbouncer.pgbouncer(database_url, "statement", tmp_path) as url,
        pytest.raises(PoolerError, match="pooler"),
    ):
        connect(url, "test")


@pytest.mark.parametrize("servers", [1, 20])
def test_a_pooler_of_sessions_is_accepted(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: int
) -> None:
    monkeypatch.setattr(connect_module, "_SESSIONS_ARE_OURS", set())
    with (
        pgbouncer.pgbouncer(database_url, "session", tmp_path, servers=servers) as url,
        connect(url, "test") as connection,
    ):
        assert read.head(connection) == 0


def test_ledger_works_behind_a_pooler_of_sessions(database_url: str, tmp_path: Path) -> None:
    with (
        pgbouncer.pgbouncer(database_url, "session", tmp_path, servers=60) as url,
        LedgerServer(url, tmp_path) as server,
    ):
        assert server.run("migrate", "--yes").returncode == 0
        server.record(*(event("lab", f"b{number}") for number in range(20)))
        assert server.settle() == 20
        assert server.run("rebuild", "--yes").returncode == 0
        assert server.run("verify").returncode == 0
