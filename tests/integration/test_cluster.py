"""The same commands on a Citus cluster: the log lies on the nodes, and the answers are the same."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
import pytest

from ledger import schema
from ledger.eventlog.append import Delivery, append
from ledger.postgres.connect import connect
from ledger.projection.projector import follow_once
from tests.support.addresses import database_of
from tests.support.answers import answers_of
from tests.support.cluster import WITHOUT, coordinator, new_cluster_database, node_urls
from tests.support.payloads import event
from tests.support.server import LedgerServer, run_ledger
from tests.support.sessions import one
from tests.support.two_labs import FIRST, fill, key

CLUSTER = coordinator()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CLUSTER is None, reason=WITHOUT)]

PAST = "as_of=2024-02-01T00:00:00Z"
READS = (
    "/v1/bills?lab_id=lab-a",
    "/v1/labs/lab-a/bills/bill",
    "/v1/labs/lab-a/bills/bill?known_at=2024-02-01T00:00:00Z",
    f"/v1/labs/lab-a/bills/bill?{PAST}",
    "/v1/labs/lab-a/bills/bill/events",
    "/v1/labs/lab-a/bills/none",
    "/v1/reports?completed=true",
    "/v1/events?after=3",
    "/v1/events?limit=2",
    "/v1/events/unreadable",
    "/v1/events/unreadable?reason=missing_field",
    "/v1/changes?after=3",
    "/v1/missing-events",
    "/v1/missing-events?state=overdue",
    f"/v1/reconciliation?{PAST}",
    f"/v1/reconciliation?{PAST}&position=25",
    f"/v1/reconciliation?{PAST}&position=23&format=csv",
    "/v1/support-requests",
    "/v1/support-requests/1",
    "/v1/loss-windows?state=requested",
    "/v1/loss-windows?state=closed",
    "/v1/expected-bills",
    "/v1/refused-deliveries",
    "/v1/projection",
    "/v1/labs/lab-a/subscription",
    "/v1/flabs/coverage",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    assert CLUSTER
    with new_cluster_database(CLUSTER) as name:
        url = database_of(CLUSTER, name)
        schema.migrate(url)
        yield url


@pytest.fixture(scope="module")
def servers(
    cluster: str, plain_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LedgerServer, LedgerServer]]:
    """Give one server on the cluster and one on a single server, with the same log."""
    folder = tmp_path_factory.mktemp("servers")
    for url in (cluster, plain_database_url):
        fill(url, with_b=True)
    with LedgerServer(cluster, folder) as here, LedgerServer(plain_database_url, folder) as there:
        assert here.settle() == there.settle()
        yield here, there


@pytest.mark.parametrize("path", READS)
def test_a_read_answers_as_on_one_server(
    servers: tuple[LedgerServer, LedgerServer], path: str
) -> None:
    for secret in (key("readall"), key("both"), key("admin")):
        answers = [
            httpx.get(server.url + path, headers={"Authorization": f"Bearer {secret}"}, timeout=30)
            for server in servers
        ]
        here, there = answers
        assert here.status_code == there.status_code, here.text
        assert here.content == there.content
        assert here.headers.get("Ledger-Position") == there.headers.get("Ledger-Position")


def test_deliveries_repeats_and_decisions_are_as_on_one_server(
    servers: tuple[LedgerServer, LedgerServer],
) -> None:
    outcomes = []
    for server in servers:
        sent = [
            server.send(payload).json()
            for payload in (event("new", "b"), event("new", "b"), b"broken", event("newer", "b"))
        ]
        waived = server.api.post(
            "/v1/missing-events/waive",
            json={
                "lab_id": "lab-a", "bill_id": "asked", "event_type": "bill.created", "reason": "r",
            },
        )  # fmt: skip
        server.settle()
        bills = [
            [bill[name] for name in ("lab_id", "bill_id", "state", "events", "position")]
            for bill in server.items("/v1/bills")
        ]
        outcomes.append((sent, waived.status_code, bills))
    assert outcomes[0] == outcomes[1]
    assert [sent["outcome"] for sent in outcomes[0][0]] == [
        "recorded", "duplicate", "unreadable", "recorded",
    ]  # fmt: skip


def test_commands_prove_and_rebuild_the_state(servers: tuple[LedgerServer, LedgerServer]) -> None:
    here, _ = servers
    before = answers_of(here)
    for command in (("verify",), ("rebuild", "--yes"), ("verify",), ("seal",)):
        ended = here.run(*command)
        assert ended.returncode == 0, (command, ended.stderr)
    assert answers_of(here) == before
    erased = here.run("erase", "7", "--reason", "r", "--yes")
    assert erased.returncode == 1
    assert b"can be erased yet" in erased.stderr


def test_the_log_lies_on_the_nodes_and_nobody_changes_it_there(cluster: str) -> None:
    with connect(cluster, "test") as connection:
        append(connection, [_delivery(f"lab{number}", "b") for number in range(20)])
    with psycopg.connect(cluster, autocommit=True) as owner:
        tables = owner.execute(
            "SELECT table_name::text, distribution_column, shard_count FROM citus_tables"
            " WHERE citus_table_type = 'distributed' ORDER BY 1"
        ).fetchall()
        shards = owner.execute(
            "SELECT nodeport, shard_name FROM citus_shards"
            " WHERE table_name = 'ledger.event_log'::regclass AND shard_size > 0"
        ).fetchall()
        for statement in (
            "UPDATE ledger.event_log SET source = 'import'",
            "DELETE FROM ledger.event_log",
            "TRUNCATE ledger.event_log",
            "UPDATE ledger.erasable_body SET body = NULL",
            "DELETE FROM ledger.repeat_delivery",
        ):
            with pytest.raises(psycopg.Error, match="refused: it is append-only"):
                owner.execute(statement)
    assert [(name, column) for name, column, _ in tables] == [
        ("ledger.erasable_body", "lab_id"),
        ("ledger.event_log", "lab_id"),
        ("ledger.repeat_delivery", "lab_id"),
    ]
    assert len({port for port, _ in shards}) == len(node_urls(cluster))
    for url in node_urls(cluster):
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("SET citus.override_table_visibility = off")
            (name, *_) = owner.execute(
                "SELECT oid::regclass::text FROM pg_class WHERE relname ~ '^event_log_\\d+$'"
            ).fetchone() or ("",)
            with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
                owner.execute(f"DELETE FROM {name}".encode())
            owner.execute("SET ROLE ledger_service")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(f"DELETE FROM {name}".encode())


def test_the_projector_stops_before_what_a_node_has_not_committed_yet(cluster: str) -> None:
    with connect(cluster, "test") as connection:
        append(connection, [_delivery("before", "b")])
        head = one(connection, "SELECT ledger.event_log_head()")
        while follow_once(connection, head).events:
            pass
        # What such an append looks like to a reader: its head is there, one of its parts is not.
        with psycopg.connect(cluster, autocommit=True) as owner:
            owner.execute("UPDATE ledger.log_head SET position = position + 1")
        append(connection, [_delivery("after", "b")])
        assert follow_once(connection, head + 2).events == 0
        assert one(connection, "SELECT position FROM state.checkpoint") == head
        rebuilt = run_ledger("rebuild", "--yes", settings={"LEDGER_DATABASE_URL": cluster})
        assert rebuilt.returncode == 1
        assert b"a node has not committed it yet" in rebuilt.stderr
        # The part comes: here by the owner's hand.
        with psycopg.connect(cluster, autocommit=True) as owner:
            owner.execute(
                "INSERT INTO ledger.event_log"
                " SELECT %s, received_at, event_time, source, lab_id, 'late', event_type, digest,"
                " body FROM ledger.event_log WHERE lab_id = 'before' LIMIT 1",
                (head + 1,),
            )
        while follow_once(connection, head + 2).events:  # or the module's projector was quicker
            pass
        assert one(connection, "SELECT position FROM state.checkpoint") == head + 2


def test_an_intake_appends_and_notes_repeats_with_its_own_role(cluster: str) -> None:
    with psycopg.connect(cluster, autocommit=True) as login:
        login.execute("SET ROLE ledger_intake")
        deliveries = [_delivery(f"intake{number}", "b") for number in range(5)]
        first = append(login, deliveries)
        later = [
            Delivery.of(each.body, received_at=datetime.now(UTC), source="webhook")
            for each in (*deliveries, deliveries[0])
        ]
        assert [each.recorded for each in first] == [True] * 5
        again = append(login, later)
        places = [each.position for each in first]
        assert [each.position for each in again] == [*places, places[0]]
        assert not any(each.recorded for each in again)
        for statement in (
            "SELECT body FROM ledger.event_log",
            "DELETE FROM ledger.event_log",
            "UPDATE ledger.repeat_delivery SET source = 'import'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                login.execute(statement)
    with connect(cluster, "test") as connection:
        repeats = "SELECT count(*) FROM ledger.repeat_delivery WHERE lab_id LIKE 'intake%'"
        assert one(connection, repeats) == 6


def test_an_installed_log_is_distributed_in_one_step(tmp_path: Path) -> None:
    assert CLUSTER
    with new_cluster_database(CLUSTER) as name:
        url = database_of(CLUSTER, name)
        # As it was installed before the extension had nodes.
        with psycopg.connect(url, autocommit=True) as owner:
            nodes = owner.execute(
                "SELECT nodename, nodeport FROM pg_dist_node WHERE groupid <> 0"
            ).fetchall()
            for node in nodes:
                owner.execute("SELECT citus_remove_node(%s, %s)", node)
        schema.migrate(url)
        settings = {"LEDGER_DATABASE_URL": url}
        refused = run_ledger("distribute", "--yes", settings=settings)
        assert refused.returncode == 1
        assert b"has no worker nodes" in refused.stderr
        with connect(url, "test") as connection:
            append(connection, [_delivery(f"lab{at % 7}", f"b{at}") for at in range(50)])
            append(connection, [_delivery("lab1", "b1")])
            before = _rows(connection)
        with psycopg.connect(url, autocommit=True) as owner:
            for node in nodes:
                owner.execute("SELECT citus_add_node(%s, %s)", node)
        migrated = run_ledger("migrate", settings=settings)
        assert b"`ledger distribute` moves it to" in migrated.stdout
        done = run_ledger("distribute", "--yes", settings=settings)
        assert done.returncode == 0, done.stderr
        with connect(url, "test") as connection:
            assert _rows(connection) == before
            (again,) = append(connection, [_delivery("lab1", "b1")])
            (new,) = append(connection, [_delivery("lab1", "new")])
            assert (again.position, again.recorded) == (2, False)
            assert (new.position, new.recorded) == (51, True)
        with LedgerServer(url, tmp_path) as server:
            assert server.settle() == 51
            assert server.get("/v1/labs/lab3/bills/b3").status_code == 200
        migrated = run_ledger("migrate", settings=settings)
        assert b"The log is distributed over" in migrated.stdout
        assert run_ledger("verify", settings=settings).returncode == 0
        repeated = run_ledger("distribute", "--yes", settings=settings)
        assert b"distributed already" in repeated.stderr


def _delivery(lab: str, bill: str) -> Delivery:
    body = (
        f'{{"labID": "{lab}", "eventType": "bill.created", "eventTime": 1705747800,'
        f' "data": {{"billID": "{bill}"}}}}'
    )
    return Delivery.of(body.encode(), received_at=FIRST, source="webhook")


def _rows(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    query = "SELECT position, lab_id, bill_id, body FROM ledger.logged_event ORDER BY position"
    return connection.execute(query).fetchall()
