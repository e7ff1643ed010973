"""Slow calls with a key hold up neither deliveries nor one another without bound."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg

from tests.support.answers import assert_problem
from tests.support.payloads import distinct, event
from tests.support.server import LedgerServer, wait_until

CALLS = 100


def waiting_for_locks(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    assert row
    return int(row[0])


def test_reports_that_wait_for_a_lock_hold_up_no_delivery_and_are_bounded(
    own_server: LedgerServer, lab: str
) -> None:
    url = own_server.settings["LEDGER_DATABASE_URL"]
    large = {**event(lab, "large"), "padding": "x" * 20_000}
    with (
        psycopg.connect(url) as owner,
        psycopg.connect(url, autocommit=True) as observer,
        ThreadPoolExecutor(CALLS) as callers,
    ):
        owner.execute("LOCK TABLE state.missing_event")
        answers = [callers.submit(own_server.get, "/v1/reconciliation") for _ in range(CALLS)]
        wait_until(lambda: waiting_for_locks(observer) >= 2, "reports wait for the lock")
        wait_until(lambda: any(one.done() for one in answers), "further reports are refused")
        for payload in (*distinct(lab, 20), large):
            began = time.monotonic()
            assert own_server.send(payload).status_code == 200
            assert time.monotonic() - began < 1
        assert own_server.anonymous.get("/health/ready").status_code == 200
        assert own_server.get("/v1/events").status_code == 200
        owner.rollback()
        statuses = Counter(one.result().status_code for one in answers)
        refused: list[httpx.Response] = [
            one.result() for one in answers if one.result().status_code == 503
        ]
    assert set(statuses) == {200, 503}
    assert "try again" in assert_problem(refused[0], 503)
    assert refused[0].headers["retry-after"] == "1"
    assert own_server.get("/v1/reconciliation").status_code == 200


def test_decisions_that_wait_hold_up_no_report_and_no_delivery(
    own_server: LedgerServer, lab: str
) -> None:
    own_server.kill_projector()
    url = own_server.settings["LEDGER_DATABASE_URL"]
    with (
        psycopg.connect(url) as owner,
        psycopg.connect(url, autocommit=True) as observer,
        ThreadPoolExecutor(8) as callers,
    ):
        owner.execute("LOCK TABLE state.expectation")
        decisions = [
            callers.submit(
                own_server.api.put,
                f"/v1/expected-bills/{lab}-{number}",
                json={"expected_by": "2024-01-01T00:00:00Z"},
            )
            for number in range(8)
        ]
        wait_until(lambda: waiting_for_locks(observer) >= 2, "decisions wait")
        began = time.monotonic()
        assert own_server.send(event(lab, "b")).status_code == 200
        assert own_server.get("/v1/loss-windows").status_code == 200
        assert time.monotonic() - began < 2
        owner.rollback()
        assert {one.result().status_code for one in decisions} <= {200, 503}
