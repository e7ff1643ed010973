"""The log as those who read over HTTP meet it: its events, in order, readable or not."""

import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.answers import assert_problem, at, parsed
from tests.support.payloads import distinct, event, whole_day
from tests.support.server import LedgerServer


def numbers_of(items: list[dict[str, Any]]) -> list[int]:
    return [item["position"] for item in items]


def test_an_event_has_the_fields_of_the_contract(server: LedgerServer, lab: str) -> None:
    before = datetime.now(UTC)
    payloads = whole_day(lab)[:2]
    positions = server.record(*payloads)
    after = datetime.now(UTC)
    items = server.items(f"/v1/labs/{lab}/bills/bill_12345/events")
    for item in items:
        assert before <= parsed(item["received_at"]) <= after
    assert items == [
        {
            "position": position,
            "event_type": payload["eventType"],
            "event_time": at(payload["eventTime"]),
            "received_at": item["received_at"],
            "source": "webhook",
            "attempt": None,
            "body": payload,
            "raw": None,
        }
        for position, payload, item in zip(positions, payloads, items, strict=True)
    ]
    in_log = server.get("/v1/events", after=positions[0] - 1, limit=2).json()["items"]
    assert in_log == [{**item, "lab_id": lab, "bill_id": "bill_12345"} for item in items]


@pytest.mark.parametrize(
    ("age", "attempt"),
    [(2, 0), (55, 0), (118, 1), (175, 1), (240, 2), (360, 3), (415, 3), (430, None), (-90, None)],
)
def test_an_event_says_which_attempt_brought_it(
    server: LedgerServer, lab: str, age: int, attempt: int | None
) -> None:
    server.record(event(lab, "b", at=int(time.time()) - age))
    (item,) = server.items(f"/v1/labs/{lab}/bills/b/events")
    assert item["attempt"] == attempt


def test_an_unreadable_event_is_listed_with_reason_path_and_detail(
    server: LedgerServer, lab: str
) -> None:
    body = {**event(lab, "b"), "eventTime": "now"}
    position = server.send(body).json()["position"]
    server.settle()
    (item,) = server.get("/v1/events/unreadable", after=position - 1).json()["items"]
    assert item["reason"] == "wrong_type"
    assert item["path"] == "$.eventTime"
    assert item["detail"]
    assert (item["lab_id"], item["bill_id"], item["event_time"]) == (lab, "b", None)
    assert item["body"] == body


def test_the_log_is_listed_in_order_of_position_without_gaps(
    server: LedgerServer, lab: str
) -> None:
    before = server.head()
    server.record(*distinct(lab, 7))
    assert numbers_of(server.items("/v1/events", after=before, limit=3)) == list(
        range(before + 1, before + 8)
    )


def test_the_log_can_be_read_while_no_projector_runs(server: LedgerServer, lab: str) -> None:
    with server.without_projector():
        (position,) = server.record(event(lab, "b"))
        assert server.items(f"/v1/labs/{lab}/bills/b/events")[0]["position"] == position
        assert server.items("/v1/events", after=position - 1)[0]["position"] == position
        assert server.anonymous.get("/health/ready").status_code == 200
        assert_problem(server.get(f"/v1/labs/{lab}/bills/b"), 404)


def test_a_bill_whose_events_are_not_folded_says_where_to_see_them(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "other type", "bill.printed"))
    server.send({**event(lab, "unreadable"), "eventTime": "now"})
    head = server.settle()
    for bill in ("other type", "unreadable"):
        path = f"/v1/labs/{lab}/bills/{quote(bill)}"
        assert len(server.items(f"{path}/events")) == 1
        for more in ("", "/findings"):
            answer = server.get(f"{path}{more}")
            detail = assert_problem(answer, 404)
            assert "1 event is in the log" in detail
            assert f"GET {path}/events" in detail
            assert answer.headers["ledger-position"] == str(head)


def test_a_bill_that_is_not_in_the_state_yet_says_which_position_to_wait_for(
    server: LedgerServer, lab: str
) -> None:
    with server.without_projector():
        (position,) = server.record(event(lab, "b"))
        detail = assert_problem(server.get(f"/v1/labs/{lab}/bills/b"), 404)
        assert f"min_position={position}" in detail


def test_a_bill_without_events_by_the_time_asked_for_says_so(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "b"))
    path = f"/v1/labs/{lab}/bills/b"
    detail = assert_problem(server.get(path, known_at="2020-01-01T00:00:00Z"), 404)
    assert "known_at" in detail
    assert "has been received" in assert_problem(
        server.get(f"{path}x", known_at="2020-01-01T00:00:00Z"), 404
    )
