"""Slow calls with a key hold up neither deliveries nor one another without bound."""

import gzip
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from select import select

import httpx
import psycopg
import pytest

from ledger.api.http.uploads import MOST_FILES
from tests.support.answers import assert_problem
from tests.support.payloads import distinct, event, lines
from tests.support.server import KEY, LedgerServer, wait_until
from tests.support.wire import PATIENCE, Wire

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


HOSTILE = {
    "a string that never ends": b'["' + b"a" * 20_000_000,
    "quotes that never end": b'["' + b'\\"' * 20_000,
    "arrays that never end": b"[" * 145_000,
    "an array that is cut off": b"[" + (b'{"a":[1,{"b":"c"}]},' * 7_000)[:145_000],
    "forty million lines": gzip.compress(b"{}\n" * 40_000_000, 1),
    "wrappers of payloads": (b'{"events":[' + b'{"labID":1},' * 40_000 + b"{}]}\n") * 5,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_two_imports_of_a_hostile_file_hold_up_no_delivery(
    server: LedgerServer, lab: str, name: str
) -> None:
    def send() -> httpx.Response:
        return server.api.post("/v1/imports", content=HOSTILE[name], timeout=90)

    with ThreadPoolExecutor(2) as callers:
        imports = [callers.submit(send) for _ in range(2)]
        number = 0
        while not all(one.done() for one in imports) or number < 5:
            began = time.monotonic()
            assert server.send(event(lab, f"b{number}")).status_code == 200
            assert time.monotonic() - began < 1
            number += 1
    assert {one.result().status_code for one in imports} <= {200, 400}


def test_no_more_files_wait_than_are_stated(server: LedgerServer, lab: str) -> None:
    begun = (
        b"POST /v1/imports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
        b"Content-Length: 100\r\n\r\n{" % KEY.encode()
    )
    with ExitStack() as open_uploads:
        wires = [open_uploads.enter_context(Wire(server)) for _ in range(MOST_FILES + 1)]
        for wire in wires:
            wire.send(begun)
        readable, _, _ = select([wire.socket for wire in wires], [], [], PATIENCE)
        (refused,) = [wire for wire in wires if wire.socket in readable]
        status, _, content = refused.answer()
        assert (status, b"files are being imported" in content) == (503, True)
        assert server.send(event(lab, "c")).status_code == 200
    payload = lines(event(lab, "b"))

    def is_taken() -> bool:
        return server.api.post("/v1/imports", content=payload).status_code == 200

    wait_until(is_taken, "files are taken again")
