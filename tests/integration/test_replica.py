"""Reads from a streaming replica: true, also while it is behind or away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from msgspec.structs import replace
from psycopg.sql import SQL

from ledger import schema
from ledger.api.authentication import Authenticator
from ledger.api.rate_limit import RateLimit
from ledger.api.service_factory import make_services
from ledger.errors import ReplicaUnavailableError, SettingsError
from ledger.operations.policy import Policy
from ledger.settings import Settings
from tests.support.payloads import event
from tests.support.postgres import PrivateServer, folder_for_postgres
from tests.support.replica import make_standby
from tests.support.server import LedgerServer, free_port, run_ledger, wait_until
from tests.support.sessions import one

pytestmark = pytest.mark.slow

READS = (
    "/v1/bills",
    "/v1/labs/lab/bills/first",
    "/v1/labs/lab/bills/first/findings",
    "/v1/labs/lab/bills/first/events",
    "/v1/labs/lab/bills/first?as_of=2030-01-01T00:00:00Z",
    "/v1/labs/lab/bills/first?known_at=2090-01-01T00:00:00Z",
    "/v1/labs/lab/bills/none",
    "/v1/labs/lab/subscription",
    "/v1/reports",
    "/v1/events",
    "/v1/events/unreadable",
    "/v1/checkpoints",
    "/v1/changes",
    "/v1/missing-events",
    "/v1/reconciliation?as_of=2024-02-01T00:00:00Z",
    "/v1/support-requests",
    "/v1/support-requests/1",
    "/v1/loss-windows",
    "/v1/expected-bills",
    "/v1/keys",
    "/v1/webhook-tokens",
    "/v1/refused-deliveries",
)


@pytest.fixture(scope="module")
def primary() -> Iterator[PrivateServer]:
    with folder_for_postgres() as folder:
        server = PrivateServer(folder / "postgres")
        try:
            schema.migrate(server.dsn())
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def replica(primary: PrivateServer) -> Iterator[PrivateServer]:
    made = make_standby(primary, primary.folder.parent / "standby")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def server(
    primary: PrivateServer, replica: PrivateServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    settings = {"LEDGER_READ_DATABASE_URL": replica.dsn()}
    folder = tmp_path_factory.mktemp("replica")
    with LedgerServer(primary.dsn(), folder, settings=settings) as started:
        yield started


@contextmanager
def behind(replica: PrivateServer) -> Iterator[None]:
    """Have the replica receive and not replay."""
    with psycopg.connect(replica.dsn(), autocommit=True) as owner:
        owner.execute("SELECT pg_wal_replay_pause()")
        wait_until(
            lambda: one(owner, "SELECT pg_get_wal_replay_pause_state()") == "paused",
            "the replay is paused",
        )
        try:
            yield
        finally:
            owner.execute("SELECT pg_wal_replay_resume()")


def test_every_read_is_answered_by_the_replica_as_by_the_primary(
    server: LedgerServer, primary: PrivateServer, tmp_path: Path
) -> None:
    server.record(event("lab", "first"), b"{}", *(event("lab", f"b{n}") for n in range(3)))
    with LedgerServer(primary.dsn(), tmp_path, project=False) as other:
        server.settle()
        for path in READS:
            there, here = other.get(path), server.get(path)
            assert here.status_code == there.status_code, (path, here.text)
            assert here.json() == there.json(), path
            assert here.headers["Ledger-Position"] == there.headers["Ledger-Position"], path


def test_a_decision_is_seen_by_the_next_read(server: LedgerServer) -> None:
    for number in range(5):
        answer = server.api.post(
            "/v1/expected-bills",
            json={"integrator_id": f"i{number}", "expected_by": "2090-01-01T00:00:00Z"},
        )
        assert answer.status_code < 300, answer.text
        items = server.items("/v1/expected-bills")
        assert f"i{number}" in {item["integrator_id"] for item in items}


def test_a_replica_that_is_behind_says_how_far_it_is_and_waits_for_a_position(
    server: LedgerServer, replica: PrivateServer
) -> None:
    server.record(event("lab", "before"))
    before = server.settle()
    with behind(replica):
        (position,) = server.record(event("lab", "late"))
        wait_until(
            lambda: server.get("/v1/projection").json()["position"] == position, "it is folded"
        )
        read = server.get("/v1/labs/lab/bills/before")
        assert (read.status_code, read.headers["Ledger-Position"]) == (200, str(before))
        assert server.get("/v1/labs/lab/bills/late").status_code == 404
        refused = server.get("/v1/labs/lab/bills/late", min_position=position, wait_ms=100)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["detail"] == (
            f"the replica is at position {before} and has not reached {position} within 100 ms; "
            "see GET /v1/projection"
        )
        shown = server.get("/v1/projection").json()
        assert shown["head"] == position
        assert shown["replica"] == {
            "answers": True, "position": before, "lag_events": position - before,
        }  # fmt: skip
        status = server.run("status").stdout.decode()
        assert f"replica    at position {before:,}, 1 event behind" in status
        # A key that was just made is read from the primary.
        made = server.api.post("/v1/keys", json={"name": "n", "scope": "read"}).json()
        shown_keys = {key["key_id"] for key in server.get("/v1/keys").json()["items"]}
        assert made["key_id"] in shown_keys
    found = server.get("/v1/labs/lab/bills/late", min_position=position, wait_ms=30_000)
    assert found.status_code == 200


def test_deliveries_and_decisions_go_on_while_the_replica_is_away(
    server: LedgerServer, replica: PrivateServer
) -> None:
    server.record(event("lab", "seen"))
    head = server.settle()
    replica.kill()
    try:
        wait_until(
            lambda: server.get("/v1/projection").json()["replica"]["answers"] is False,
            "its absence is noticed",
        )
        for path in ("/v1/labs/lab/bills/seen", "/v1/bills", "/v1/support-requests"):
            answer = server.get(path)
            assert answer.status_code == 503, path
            assert answer.headers["Retry-After"] == "1"
            assert answer.json()["detail"] == (
                "the replica that this server reads from does not answer: try again"
            )
        waited = server.get("/v1/bills", min_position=head + 1, wait_ms=0)
        assert waited.json()["detail"].startswith("the replica does not answer; it is at position")
        assert server.anonymous.get("/health/ready").status_code == 200
        (position,) = server.record(event("lab", "unseen"))
        assert server.get("/v1/reconciliation").status_code == 200
        metrics = server.anonymous.get("/metrics").text
        assert "ledger_replica_up 0.0" in metrics
        assert "ledger_database_up 1.0" in metrics
        assert "does not answer" in server.run("status").stdout.decode()
    finally:
        replica.start()
    read = server.get("/v1/labs/lab/bills/unseen", min_position=position, wait_ms=30_000)
    assert read.status_code == 200
    assert "ledger_replica_up 1.0" in server.anonymous.get("/metrics").text


def test_an_api_that_only_reads_is_not_ready_without_its_replica(
    primary: PrivateServer, tmp_path: Path
) -> None:
    settings = {
        "LEDGER_READ_DATABASE_URL": f"postgresql://ledger@127.0.0.1:{free_port()}/ledger",
        "LEDGER_LISTEN_INTAKE": "off",
    }
    with LedgerServer(
        primary.dsn(), tmp_path, settings=settings, project=False, wait=False
    ) as server:

        def started() -> bool:
            with suppress(httpx.TransportError):
                return server.anonymous.get("/health/live").status_code == 200
            return False

        wait_until(started, "it lives")
        answer = server.anonymous.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["detail"] == (
            "the replica that this server reads from does not answer"
        )


def test_a_database_that_is_no_replica_is_refused(
    primary: PrivateServer, database_url: str
) -> None:
    ended = run_ledger(
        "serve",
        settings={
            "LEDGER_DATABASE_URL": primary.dsn(),
            "LEDGER_READ_DATABASE_URL": database_url,
            "LEDGER_WEBHOOK_TOKENS": "a-token-of-this-test",
        },
    )
    assert ended.returncode == 1
    assert b"no streaming replica" in ended.stderr


def test_a_replica_is_one_server() -> None:
    environment = {"LEDGER_READ_DATABASE_URL": "postgresql://one,other/ledger"}
    with pytest.raises(SettingsError, match="must name one server"):
        Settings.from_environment(environment)


def test_a_state_that_is_behind_what_was_seen_of_it_is_not_read(module_database_url: str) -> None:
    settings = Settings(database_url=module_database_url, read_database_url=module_database_url)

    async def read() -> None:
        services = make_services(
            settings,
            module_database_url,
            None,
            Policy.of(settings),
            authenticator=Authenticator(module_database_url, ""),
            rates=RateLimit(0),
        )
        await services.pool.open()
        try:
            needing = replace(services, needed=1)
            with pytest.raises(ReplicaUnavailableError, match="position 0 and has not reached 1"):
                await needing.fetch_state(SQL("SELECT position FROM state.checkpoint"))
            with pytest.raises(ReplicaUnavailableError, match="position 0 and has not reached 1"):
                await needing.run(lambda _: None)
        finally:
            services.close()
            await services.pool.close()

    asyncio.run(read())
