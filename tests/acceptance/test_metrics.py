"""What Prometheus scrapes: each series once, from the start, whatever happens to the processes."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from math import isnan
from pathlib import Path

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import Connection

from ledger import schema
from tests.support.payloads import distinct, event
from tests.support.postgres import PrivateServer
from tests.support.server import KEY, LedgerServer, environment, is_worker, wait_until
from tests.support.sessions import one

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

REFUSALS = ("400", "401", "405", "413", "503")
COUNTERS = {
    ("ledger_deliveries_total", "recorded"),
    ("ledger_deliveries_total", "duplicate"),
    ("ledger_deliveries_total", "unreadable"),
    *(
        ("ledger_deliveries_refused_total", status)
        for status in ("400", "401", "405", "413", "503")
    ),
    *(("ledger_refused_box_total", outcome) for outcome in ("new", "repeated", "without_room")),
    ("ledger_lane_failures_total", ""),
    ("ledger_lane_batch_size_count", ""),
    ("ledger_commit_seconds_count", ""),
    ("ledger_delivery_seconds_count", ""),
}
GAUGES = {
    "ledger_database_up", "ledger_head", "ledger_position", "ledger_lag_events",
    "ledger_lag_seconds", "ledger_parked_bills", "ledger_overdue_events",
    "ledger_requested_events", "ledger_unseen_bills", "ledger_alerts_waiting",
    "ledger_alerts_given_up", "ledger_refused_deliveries",
    "ledger_refused_deliveries_of_known_labs", "ledger_refused_known_labs",
    "ledger_spool_deliveries", "ledger_spool_bytes", "ledger_spool_oldest_seconds",
    "ledger_spool_set_aside", "ledger_sealed_position", "ledger_seal_lag_seconds",
    "ledger_signed_position", "ledger_replica_up", "ledger_replica_position",
    "ledger_flabs_up", "ledger_flabs_age_seconds",
    "ledger_labs_not_subscribed", "ledger_labs_never_heard", "ledger_labs_not_in_account",
    "ledger_labs_events_not_subscribed", "ledger_loss_windows_open", "ledger_receivers_alive",
    "ledger_rebuild_events_done", "ledger_rebuild_events_total",
    "ledger_verification_age_seconds", "ledger_verification_differs",
    "ledger_certificate_expiry_timestamp_seconds", "ledger_build_info",
    "ledger_lane_waiting", "ledger_change_streams", "ledger_pool_connections",
    "ledger_pool_waiting", "ledger_resident_memory_bytes", "ledger_cpu_seconds_total",
}  # fmt: skip
AS_REQUESTS_COME = {
    "ledger_http_requests_total", "ledger_http_request_seconds_bucket",
    "ledger_http_request_seconds_count", "ledger_http_request_seconds_sum",
}  # fmt: skip
"""Series of routes, which begin with the first request."""


def scrape(server: LedgerServer, api_key: str | None = None) -> Series:
    """Read the metrics; fail for a family or a series that stands twice."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    answer = server.anonymous.get("/metrics", headers=headers)
    assert answer.status_code == 200
    found: Series = {}
    families = list(text_string_to_metric_families(answer.text))
    assert len(families) == len({family.name for family in families})
    for family in families:
        assert family.documentation not in {"", "Multiprocess metric"}
        assert family.type != "unknown"
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            if sample.name not in AS_REQUESTS_COME:
                found[key] = sample.value
    return found


def requests(server: LedgerServer) -> Series:
    """Read how often each route was asked."""
    families = text_string_to_metric_families(server.anonymous.get("/metrics").text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name in {"ledger_http_requests_total", "ledger_http_request_seconds_count"}
    }


def value(series: Series, name: str, label: str = "") -> float:
    (found,) = (
        number
        for (given, labels), number in series.items()
        if given == name and (label in dict(labels).values() if label else not labels)
    )
    return found


@pytest.mark.parametrize("workers", ["1", "3"])
def test_every_series_is_there_from_the_start_and_stays_one(
    database_url: str, tmp_path: Path, lab: str, workers: str
) -> None:
    with LedgerServer(database_url, tmp_path, settings={"LEDGER_WORKERS": workers}) as server:
        first = scrape(server)
        assert {value(first, *counter) for counter in COUNTERS} == {0.0}
        assert {name for name, _ in first} >= GAUGES
        server.record(*distinct(lab, 5), event(lab, "b"), event(lab, "b"), f"broken {lab}")
        server.send(event(lab, "b"), token="wrong")
        server.settle()
        for _ in range(10):  # so that each worker answers
            later = scrape(server)
            assert later.keys() == first.keys()
            assert value(later, "ledger_deliveries_total", "recorded") == 6
            assert value(later, "ledger_deliveries_total", "duplicate") == 1
            assert value(later, "ledger_deliveries_total", "unreadable") == 1
            assert value(later, "ledger_deliveries_refused_total", "401") == 1
            assert value(later, "ledger_head") == 7
            assert value(later, "ledger_position") == 7
            assert value(later, "ledger_database_up") == 1


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_a_killed_worker_leaves_its_counts_and_no_gauge(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    with LedgerServer(database_url, tmp_path, settings={"LEDGER_WORKERS": "2"}) as server:
        first = scrape(server)
        server.record(*distinct(lab, 8))
        workers = [pid for pid in children(server.serve.pid) if is_worker(pid)]
        os.kill(workers[0], signal.SIGKILL)
        wait_until(
            lambda: {pid for pid in children(server.serve.pid) if is_worker(pid)} - set(workers),
            "another worker is started",
        )
        server.wait_until_ready()
        server.settle()
        for _ in range(6):
            later = scrape(server)
            assert later.keys() == first.keys()
            assert value(later, "ledger_deliveries_total", "recorded") == 8
            assert value(later, "ledger_head") == 8


_TWO_WORKERS = """
import os
from ledger import metrics
worker = os.fork()
if not worker:
    metrics.WAITING.set(7)
    metrics.DELIVERIES.labels("recorded").inc(5)
    os._exit(0)
os.waitpid(worker, 0)
metrics.WAITING.set(1)
metrics.DELIVERIES.labels("recorded").inc(2)
print(metrics.exposition([]).decode())
"""


def test_what_a_worker_measured_of_itself_ends_with_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TWO_WORKERS],
        env={**environment({}), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    lines = done.stdout.decode().splitlines()
    assert "ledger_lane_waiting 1.0" in lines
    assert 'ledger_deliveries_total{outcome="recorded"} 7.0' in lines


def test_during_an_outage_of_the_database_every_series_stays(
    postgres_server: PrivateServer, tmp_path: Path, lab: str
) -> None:
    schema.migrate(postgres_server.dsn())
    with LedgerServer(postgres_server.dsn(), tmp_path) as server:
        first = scrape(server)
        server.record(event(lab, "b"))
        postgres_server.kill()
        during = scrape(server)
        assert during.keys() == first.keys()
        assert value(during, "ledger_database_up") == 0
        assert isnan(value(during, "ledger_head"))
        assert value(during, "ledger_deliveries_total", "recorded") == 1
        postgres_server.start()
        wait_until(lambda: value(scrape(server), "ledger_database_up"), "the database is back")
        assert value(scrape(server), "ledger_head") == 1


def test_a_lost_state_is_not_an_outage_of_the_database(own_server: LedgerServer) -> None:
    own_server.kill_projector()
    with psycopg.connect(own_server.settings["LEDGER_DATABASE_URL"], autocommit=True) as owner:
        owner.execute("ALTER SCHEMA state RENAME TO lost")
    found = scrape(own_server)
    assert value(found, "ledger_database_up") == 1
    assert isnan(value(found, "ledger_position"))


def test_requests_are_counted_by_route_and_not_by_path(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    with LedgerServer(database_url, tmp_path) as server:
        server.record(event(lab, "b"))
        server.settle()
        for path in (f"/v1/labs/{lab}/bills/b", f"/v1/labs/{lab}/bills/none", "/nothing/x", "/y"):
            server.api.get(path)
        server.api.request("BREW", "/y")
        found = requests(server)

    def counted(route: str, method: str, status: str) -> float:
        labels = frozenset({("route", route), ("method", method), ("status", status)})
        return found[("ledger_http_requests_total", labels)]

    bill = "/v1/labs/{lab_id}/bills/{bill_id}"
    assert counted(bill, "GET", "200") == 1
    assert counted(bill, "GET", "404") == 1
    assert counted("other", "GET", "404") == 2
    assert found[("ledger_http_request_seconds_count", frozenset({("route", bill)}))] == 2
    assert not any("/metrics" in str(labels) for _, labels in found)


def test_what_was_measured_of_deliveries_and_of_the_processes(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    with LedgerServer(database_url, tmp_path, settings={"LEDGER_WORKERS": "2"}) as server:
        server.record(*distinct(lab, 5))
        wait_until(
            lambda: value(scrape(server), "ledger_receivers_alive") == 2, "both workers live"
        )
        found = scrape(server)
        assert value(found, "ledger_commit_seconds_count") >= 1
        assert value(found, "ledger_delivery_seconds_count") >= 1
        wait_until(lambda: value(scrape(server), "ledger_resident_memory_bytes"), "memory")
        assert value(scrape(server), "ledger_resident_memory_bytes") > 2 * 20e6
        # They are as they were a second ago, and how long a start takes is the machine's.
        wait_until(
            lambda: value(scrape(server), "ledger_cpu_seconds_total") > 0.1, "processor time"
        )
        wait_until(lambda: value(scrape(server), "ledger_lane_waiting") == 0, "no delivery waits")
        with server.api.stream("GET", "/v1/changes", headers={"Accept": "text/event-stream"}):
            wait_until(lambda: value(scrape(server), "ledger_change_streams") == 1, "a stream")
        wait_until(lambda: value(scrape(server), "ledger_change_streams") == 0, "none")


def test_a_flood_of_scrapes_holds_up_no_report(database_url: str, tmp_path: Path) -> None:
    """A table is locked, so that each scrape waits for as long as the test likes."""
    with (
        LedgerServer(database_url, tmp_path) as server,
        closing(psycopg.connect(database_url)) as owner,
        ExitStack() as flood,
    ):
        owner.execute("LOCK TABLE ledger.verification")
        for _ in range(50):
            scraper = flood.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: _blocked(owner), "a scrape waits")
        assert server.api.get("/v1/labs").status_code == 200
        assert _blocked(owner) == 1
        owner.rollback()
        assert value(scrape(server), "ledger_database_up") == 1


def _blocked(owner: Connection) -> int:
    query = (
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE NOT l.granted AND d.datname = current_database()"
    )
    return int(one(owner, query))


def by_lab(series: Series) -> dict[tuple[str, str], float]:
    return {
        (dict(labels)["lab"], dict(labels)["state"]): number
        for (name, labels), number in series.items()
        if name == "ledger_missing_events"
    }


def test_missing_events_by_lab_are_told_to_who_may_see_all_labs(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    with LedgerServer(database_url, tmp_path) as server:
        server.record(event(lab, "b", "bill.completed"), event("(other labs)", "b"))
        server.settle()
        told = by_lab(scrape(server, KEY))
        assert told[lab, "awaiting_retry"] >= 1
        assert told["", "overdue"] == 0
        keys = [
            server.api.post("/v1/keys", json={"name": "k", "scope": "read", **more}).json()["key"]
            for more in ({}, {"labs": [lab]})
        ]
        wait_until(lambda: by_lab(scrape(server, keys[0])) == told, "a key for all labs sees them")
        server.get("/v1/bills", lab_id=lab)
        for presented in (keys[1], "wrong", None):
            assert by_lab(scrape(server, presented)) == {}
