"""For which position an answer is true, and how to wait for one."""

import threading
import time

import httpx
import pytest

from ledger.model.bill import FOLD_VERSION
from tests.support.answers import READS, assert_problem
from tests.support.payloads import event
from tests.support.server import LedgerServer


def test_the_projection_says_how_far_it_is(server: LedgerServer, lab: str) -> None:
    server.record(event(lab, "b"))
    head = server.settle()
    assert server.get("/v1/projection").json() == {
        "version": FOLD_VERSION,
        "position": head,
        "head": head,
        "lag_events": 0,
        "lag_seconds": 0.0,
        "parked": 0,
        "rebuild": None,
        "replica": None,
    }


@pytest.mark.parametrize("path", READS)
def test_every_answer_says_for_which_position_it_is_true(
    server: LedgerServer, lab: str, path: str
) -> None:
    server.record(event(lab, "b"))
    head = server.settle()
    answer = server.get(path)
    assert answer.status_code in {200, 404}
    assert answer.headers["ledger-position"] == str(head)


def test_min_position_waits_until_what_was_just_sent_is_in_the_state(
    server: LedgerServer, lab: str
) -> None:
    for number in range(5):
        (position,) = server.record(event(lab, f"b{number}"))
        answer = server.get(f"/v1/labs/{lab}/bills/b{number}", min_position=position)
        assert answer.status_code == 200
        assert int(answer.headers["ledger-position"]) >= position


def test_min_position_is_answered_with_503_when_it_is_not_reached_in_time(
    server: LedgerServer, lab: str
) -> None:
    with server.without_projector():
        (position,) = server.record(event(lab, "b"))
        for path in READS:
            began = time.monotonic()
            answer = server.get(path, min_position=position, wait_ms=60)
            assert str(position) in assert_problem(answer, 503)
            assert answer.headers["retry-after"] == "1"
            assert 0.05 < time.monotonic() - began < 1.5
        began = time.monotonic()
        assert_problem(server.get("/v1/bills", min_position=position), 503)
        assert 1.9 < time.monotonic() - began < 4
        lag = server.get("/v1/projection").json()
        assert (lag["lag_events"], lag["lag_seconds"] > 0) == (1, True)
    assert server.get("/v1/bills", min_position=position, wait_ms=20_000).status_code == 200


def test_who_waits_is_woken_when_the_projector_comes_back(server: LedgerServer, lab: str) -> None:
    found: list[httpx.Response] = []
    server.kill_projector()
    (position,) = server.record(event(lab, "b"))
    waiter = threading.Thread(
        target=lambda: found.append(
            server.get(f"/v1/labs/{lab}/bills/b", min_position=position, wait_ms=20_000)
        )
    )
    waiter.start()
    server.start_projector()
    waiter.join(30)
    assert [answer.status_code for answer in found] == [200]
