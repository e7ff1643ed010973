"""The drill: a synchronous standby takes over, and the old primary is fenced."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from ledger import schema
from tests.support.payloads import event
from tests.support.postgres import PrivateServer
from tests.support.replica import make_standby
from tests.support.server import LedgerServer, run_ledger, wait_until
from tests.support.sessions import one

pytestmark = pytest.mark.slow

SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


def execute(server: PrivateServer, *statements: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as owner:
        for statement in statements:
            owner.execute(statement.encode())


@pytest.fixture
def standby(postgres_server: PrivateServer) -> Iterator[PrivateServer]:
    schema.migrate(postgres_server.dsn())
    made = make_standby(postgres_server, postgres_server.folder.parent / "standby")
    try:
        names = "ALTER SYSTEM SET synchronous_standby_names = '*'"
        execute(postgres_server, names, "SELECT pg_reload_conf()")
        with psycopg.connect(postgres_server.dsn(), autocommit=True) as owner:
            wait_until(lambda: one(owner, SYNCHRONOUS) == 1, "the standby is synchronous")
        yield made
    finally:
        made.stop()


def either(first: PrivateServer, second: PrivateServer) -> str:
    """Return a URL that leads to whichever of the two takes writes."""
    one_of, other = urlsplit(first.dsn()), urlsplit(second.dsn())
    hosts = f"{one_of.netloc},127.0.0.1:{other.port}"
    return f"postgresql://{hosts}{one_of.path}?target_session_attrs=read-write"


def bills(server: PrivateServer) -> list[str]:
    with psycopg.connect(server.dsn()) as owner:
        rows = owner.execute("SELECT bill_id FROM ledger.event_log ORDER BY position").fetchall()
    return [bill for (bill,) in rows]


def test_a_promoted_standby_has_all_that_was_acknowledged_and_the_old_primary_takes_nothing(
    postgres_server: PrivateServer, standby: PrivateServer, tmp_path: Path
) -> None:
    settings = {"LEDGER_SPOOL_DIR": str(tmp_path / "spool"), "LEDGER_SPOOL_AFTER": "1"}
    url = either(postgres_server, standby)
    with LedgerServer(url, tmp_path, settings=settings) as server:
        for number in range(20):
            assert server.send(event("lab", f"before{number}")).status_code == 200

        # Promoted while the old primary still runs: that has lost its standby, and can acknowledge
        # nothing any more, so nothing that it alone holds was acknowledged as recorded.
        execute(standby, "SELECT pg_promote(true, 60)")
        answer = server.send(event("lab", "between"))
        assert (answer.status_code, answer.json()) == (202, {"outcome": "spooled"})

        postgres_server.kill()
        wait_until(lambda: "between" in bills(standby), "the spool is drained into the new one")
        assert server.send(event("lab", "after")).json()["outcome"] == "recorded"

        # Back, and fenced: read-only. A client that knows both must find the other.
        configuration = postgres_server.folder / "cluster" / "postgresql.auto.conf"
        with configuration.open("a") as file:
            file.write("default_transaction_read_only = on\n")
        postgres_server.start()
        with psycopg.connect(standby.dsn(), autocommit=True) as owner:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            owner.execute(f"{query} WHERE application_name LIKE 'ledger %'".encode())
        wait_until(
            lambda: server.send(event("lab", "last")).json().get("position"), "it is recorded"
        )
        server.settle()
        for bill in ("before19", "between", "after", "last"):
            assert server.get(f"/v1/labs/lab/bills/{bill}").status_code == 200, bill
        assert server.run("verify").returncode == 0
    expected = {*(f"before{number}" for number in range(20)), "between", "after", "last"}
    assert len(bills(standby)) == len(expected)
    assert set(bills(standby)) == expected
    assert not {"after", "last"} & set(bills(postgres_server))


def test_a_server_that_knows_only_the_fenced_primary_acknowledges_nothing_as_recorded(
    postgres_server: PrivateServer, tmp_path: Path
) -> None:
    schema.migrate(postgres_server.dsn())
    execute(
        postgres_server,
        "ALTER SYSTEM SET default_transaction_read_only = on",
        "SELECT pg_reload_conf()",
    )
    with LedgerServer(postgres_server.dsn(), tmp_path, project=False, wait=False) as server:

        def refuses() -> bool:
            with suppress(httpx.TransportError):  # it starts
                return server.send(event("lab", "b")).status_code == 503
            return False

        wait_until(refuses, "it refuses")
        assert server.anonymous.get("/health/ready").status_code == 503
    ended = run_ledger("verify", settings={"LEDGER_DATABASE_URL": postgres_server.dsn()})
    assert ended.returncode == 0, ended.stderr
    assert bills(postgres_server) == []
