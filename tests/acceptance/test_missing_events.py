"""Missing events from the first knowledge of them to their end, over HTTP and on the terminal."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.answers import assert_problem, parsed
from tests.support.operations import (
    AT_ONCE,
    DONE,
    Desk,
    found_report,
    last_received,
    lost_end,
    named,
)
from tests.support.payloads import BASE, event
from tests.support.server import LedgerServer, wait_until


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server for which all is overdue at once."""
    folder = tmp_path_factory.mktemp("desk")
    with Desk(module_database_url, folder, settings=AT_ONCE) as started:
        yield started


# --- states -----------------------------------------------------------------------------------


def test_a_missing_event_goes_from_overdue_to_requested_to_waived(desk: Desk, lab: str) -> None:
    desk.lose(lab)

    def states() -> set[tuple[str, int | None]]:
        bill = desk.get(f"/v1/labs/{lab}/bills/b").json()
        listed = desk.missing(lab_id=lab)
        assert bill["missing_events"] == listed
        return {(item["state"], item["request"]) for item in listed}

    assert states() == {("overdue", None)}
    number = desk.ask(lab_id=lab)["number"]
    assert states() == {("requested", number)}
    assert desk.waive(lab).status_code == 200
    assert {state for state, _ in states()} == {"waived"}
    desk.record(found_report(lab))
    desk.settle()
    assert states() == set()


def test_a_missing_event_becomes_overdue_by_the_clock_alone(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    settings = {**AT_ONCE, "LEDGER_RETRY_INTERVAL": "2", "LEDGER_RETRY_COUNT": "1"}
    with Desk(database_url, tmp_path, settings=settings) as desk:
        desk.lose(lab)
        (item,) = desk.missing()
        received = parsed(item["evidence"]["received_at"])
        assert parsed(item["due_at"]) == received + timedelta(seconds=2)
        head = desk.head()
        wait_until(lambda: desk.missing(state="overdue"), "it is overdue")
        assert desk.missing(state="awaiting_retry") == []
        assert desk.head() == head
        path = f"/v1/labs/{lab}/bills/b"
        before = {"known_at": (received + timedelta(seconds=1)).isoformat()}
        (then,) = desk.get(path, **before).json()["missing_events"]
        assert then["state"] == "awaiting_retry"


def test_what_may_still_come_is_not_asked_for(own_server: LedgerServer, lab: str) -> None:
    server = own_server
    server.record(event(lab, "b", "bill.completed", tests={"t": DONE}))
    server.settle()
    assert {item["state"] for item in server.items("/v1/missing-events", lab_id=lab)} == {
        "awaiting_retry"
    }
    answer = server.api.post("/v1/support-requests", json={"include_possible": True})
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_bill_known_at_a_time_shows_what_was_asked_by_then(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    received = last_received(desk, lab)
    number = desk.ask(lab_id=lab)["number"]
    made_at = parsed(desk.asked(number)["made_at"])
    desk.waive(lab)

    def known_at(moment: object) -> tuple[str, int | None]:
        answer = desk.get(f"/v1/labs/{lab}/bills/b", known_at=str(moment).replace(" ", "T"))
        (item,) = answer.json()["missing_events"]
        return item["state"], item["request"]

    assert known_at(received) == ("overdue", None)
    assert known_at(made_at) == ("requested", number)
    assert known_at(made_at - timedelta(microseconds=1)) == ("overdue", None)
    assert known_at("2100-01-01T00:00:00Z")[0] == "waived"


def test_a_deleted_bill_misses_nothing_any_more(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    desk.record(event(lab, "b", "bill.deleted", at=BASE + 90))
    desk.settle()
    assert desk.missing(lab_id=lab) == []
    assert desk.post("/v1/support-requests", lab_id=lab).status_code == 204


# --- lists ------------------------------------------------------------------------------------


def test_each_state_has_a_filter_that_works_with_the_others_and_a_cursor(
    desk: Desk, lab: str
) -> None:
    desk.lose(lab, "r1", "r2")
    desk.ask(lab_id=lab)
    desk.lose(lab, "w1", "w2")
    for bill in ("w1", "w2"):
        assert desk.waive(lab, bill).status_code == 200
    desk.lose(lab, "o1", "o2")
    desk.record(*lost_end(lab, "p1"))
    desk.settle()

    def bills(**filters: object) -> list[str]:
        return [item["bill_id"] for item in desk.missing(lab_id=lab, **filters)]

    for limit in (1, 3, 1000):
        assert bills(limit=limit) == ["r1", "r2", "w1", "w2", "o1", "o2", "p1"]
        assert bills(limit=limit, state="requested") == ["r1", "r2"]
        assert bills(limit=limit, state="waived") == ["w1", "w2"]
        assert bills(limit=limit, state="overdue") == ["o1", "o2", "p1"]
        assert bills(limit=limit, state="overdue", certainty="certain") == ["o1", "o2"]
        assert bills(limit=limit, state="overdue", event_type="bill.completed") == ["p1"]
        assert bills(limit=limit, state="awaiting_retry") == []


def test_the_terminal_lists_what_http_lists(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b1", "b2")
    desk.waive(lab, "b2")
    done = desk.run("missing", "--lab", lab, "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == desk.missing(lab_id=lab)
    done = desk.run("missing", "--lab", lab, "--state", "overdue")
    assert done.returncode == 0
    assert b"b1" in done.stdout
    assert b"b2" not in done.stdout
    done = desk.run("missing", "--lab", lab, "--type", "bill.deleted", "--json")
    assert (done.returncode, done.stdout) == (0, b"")


# --- subscriptions ----------------------------------------------------------------------------


def test_a_lab_can_have_a_subscription_of_its_own(desk: Desk, lab: str) -> None:
    other = f"{lab}-other"
    for one in (lab, other):
        desk.record(event(one, "b", "bill.completed", tests={"t": DONE}))
    desk.settle()
    path = f"/v1/labs/{lab}/subscription"
    everything = desk.get(path).json()["events"]
    assert set(everything) == {
        "bill.created",
        "report.completed",
        "bill.completed",
        "bill.deleted",
    }

    def types(of: str) -> set[str]:
        bill = desk.get(f"/v1/labs/{of}/bills/b").json()
        listed = desk.missing(lab_id=of)
        assert bill["missing_events"] == sorted(listed, key=lambda item: item["test_id"] or "")
        (in_list,) = desk.items("/v1/bills", lab_id=of)
        assert in_list["missing"] == len(listed)
        assert desk.report(lab_id=of)["missing_events"] == listed
        return {item["event_type"] for item in listed}

    both = {"bill.created", "report.completed"}
    assert types(lab) == both
    answer = desk.put(path, events=["bill.created", "bill.completed"])
    assert answer.status_code == 200
    assert answer.json() == desk.get(path).json()
    assert set(answer.json()["events"]) == {"bill.created", "bill.completed"}
    assert types(lab) == {"bill.created"}
    assert types(other) == both
    assert [line["event_type"] for line in desk.ask(lab_id=lab)["lines"]] == ["bill.created"]
    assert desk.waive(other, event_type="bill.completed", test_id=None).status_code == 404
    assert desk.waive(lab).status_code == 404
    assert desk.put(path, events=[]).status_code == 200
    assert types(lab) == set()
    assert desk.put(path, events=None).json()["events"] == everything
    assert {item["event_type"] for item in desk.missing(lab_id=lab)} == both


def test_what_no_lab_subscribes_cannot_be_missing_but_for_a_lab_that_does(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    settings = {**AT_ONCE, "LEDGER_EVENTS": "report.completed,bill.completed"}
    with Desk(database_url, tmp_path, settings=settings) as desk:
        desk.record(event(lab, "b", "bill.completed", tests={"t": DONE}))
        desk.settle()
        assert desk.missing() == [
            item for item in desk.missing() if item["event_type"] == "report.completed"
        ]
        assert len(desk.get(f"/v1/labs/{lab}/bills/b").json()["missing_events"]) == 1
        assert desk.get(f"/v1/labs/{lab}/subscription").json()["events"] == [
            "report.completed",
            "bill.completed",
        ]
        desk.put(f"/v1/labs/{lab}/subscription", events=["bill.created"])
        assert [item["event_type"] for item in desk.missing()] == ["bill.created"]
        assert [line["event_type"] for line in desk.ask()["lines"]] == ["bill.created"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"events": "bill.created"},
        {"events": ["bill.exploded"]},
        {"events": [None]},
        {"events": {}},
        {"events": [], "more": 1},
    ],
)
def test_a_subscription_that_cannot_be_is_refused(desk: Desk, lab: str, body: object) -> None:
    head = desk.head()
    detail = assert_problem(desk.api.put(f"/v1/labs/{lab}/subscription", json=body), 400)
    assert "events" in detail or "more" in detail
    assert desk.head() == head


# --- access -----------------------------------------------------------------------------------

CALLS = [
    ("GET", "/v1/missing-events"),
    ("POST", "/v1/missing-events/waive"),
    ("POST", "/v1/missing-events/unwaive"),
    ("POST", "/v1/missing-events/waive-matching"),
    ("GET", "/v1/loss-windows"),
    ("POST", "/v1/loss-windows/close"),
    ("GET", "/v1/reconciliation"),
    ("GET", "/v1/support-requests"),
    ("POST", "/v1/support-requests"),
    ("GET", "/v1/support-requests/1"),
    ("POST", "/v1/support-requests/1/close"),
    ("GET", "/v1/expected-bills"),
    ("POST", "/v1/expected-bills"),
    ("PUT", "/v1/expected-bills/x"),
    ("DELETE", "/v1/expected-bills/x"),
    ("POST", "/v1/imports"),
    ("GET", "/v1/labs/x/subscription"),
    ("PUT", "/v1/labs/x/subscription"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_nobody_without_the_key_reads_or_decides(desk: Desk, method: str, path: str) -> None:
    head = desk.head()
    for headers in ({}, {"Authorization": f"Bearer {desk.token}"}):
        answer = desk.anonymous.request(method, path, headers=headers, json=named("l"))
        assert_problem(answer, 401)
    assert desk.head() == head


@pytest.mark.parametrize("path", sorted({path for _, path in CALLS}))
def test_a_method_that_a_call_does_not_have_is_refused(desk: Desk, path: str) -> None:
    assert_problem(desk.api.patch(path, json={}), 405)
    if ("GET", path) not in CALLS and path != "/v1/expected-bills/x":
        assert_problem(desk.get(path), 405)
