"""What those who read over HTTP meet: shapes, filters, cursors, positions, times, ids."""

import base64
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest

from tests.acceptance.payloads import BASE, Payload, distinct, event
from tests.support.server import ROOT, LedgerServer

READS = (
    "/v1/bills",
    "/v1/reports",
    "/v1/events",
    "/v1/events/unreadable",
    "/v1/changes",
    "/v1/missing-events",
    "/v1/projection",
    "/v1/labs/no_lab/bills/no_bill",
    "/v1/labs/no_lab/bills/no_bill/events",
)
LISTS = READS[:6]


def at(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def assert_problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    detail: str = problem["detail"]
    return detail


def whole_day(lab: str) -> list[Payload]:
    """Make the history of the contract's example: two tests, all is completed."""
    both: dict[str, str | None] = {"test_001": "completed", "test_002": "completed"}
    url = "https://reports.example/bill_12345"
    return [
        event(lab, "bill_12345", tests={"test_001": None, "test_002": "pending"}, integrator="x"),
        event(lab, "bill_12345", "report.completed", at=BASE + 60, tests={"test_001": "completed"}),
        event(lab, "bill_12345", "report.completed", at=BASE + 120, tests=both),
        event(
            lab, "bill_12345", "bill.completed", at=BASE + 180, tests=both, status="completed",
            url=url, integrator="x",
        ),
    ]  # fmt: skip


# --- shapes -----------------------------------------------------------------------------------


def test_a_bill_has_the_fields_of_the_contract(server: LedgerServer, lab: str) -> None:
    positions = server.record(*whole_day(lab))
    server.settle()
    events = server.items(f"/v1/labs/{lab}/bills/bill_12345/events")
    answer = server.get(f"/v1/labs/{lab}/bills/bill_12345")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "lab_id": lab,
        "bill_id": "bill_12345",
        "integrator_id": "x",
        "state": "completed",
        "flabs_status": "completed",
        "created_at": at(BASE),
        "completed_at": at(BASE + 180),
        "deleted_at": None,
        "report_url": "https://reports.example/bill_12345",
        "reports_total": 2,
        "reports_completed": 2,
        "reports": [
            {
                "test_id": test,
                "status": "completed",
                "completed_at": at(BASE + offset),
                "evidence": "report.completed",
            }
            for test, offset in (("test_001", 60), ("test_002", 120))
        ],
        "missing_events": [],
        "findings": [],
        "events": 4,
        "first_received_at": events[0]["received_at"],
        "last_received_at": events[3]["received_at"],
        "last_event_at": at(BASE + 180),
        "position": positions[-1],
    }


def test_a_bill_in_a_list_has_no_reports_but_counts_what_is_missing(
    server: LedgerServer, lab: str
) -> None:
    server.record(
        event(lab, "b", "bill.completed", tests={"t1": "completed", "t2": "completed", "t3": None})
    )
    server.settle()
    bill = server.get(f"/v1/labs/{lab}/bills/b").json()
    assert len(bill["missing_events"]) == 3
    expected = {name: bill[name] for name in bill if name not in {"reports", "missing_events"}}
    (item,) = server.items("/v1/bills", lab_id=lab)
    assert item == {**expected, "missing": 3}


def test_a_report_in_a_list_names_its_bill(server: LedgerServer, lab: str) -> None:
    server.record(*whole_day(lab))
    server.settle()
    reports = server.get(f"/v1/labs/{lab}/bills/bill_12345").json()["reports"]
    more = {"lab_id": lab, "bill_id": "bill_12345", "integrator_id": "x"}
    found = server.items("/v1/reports", lab_id=lab)
    assert sorted(found, key=lambda item: str(item["test_id"])) == [
        {**report, **more} for report in reports
    ]


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


def test_a_missing_event_has_the_fields_of_the_contract(server: LedgerServer, lab: str) -> None:
    tests: dict[str, str | None] = {"t1": "completed"}
    created, completed = server.record(
        event(lab, "b", integrator="x", tests=tests),
        event(lab, "b", "bill.completed", at=BASE + 9, tests=tests),
    )
    server.settle()
    received = server.items(f"/v1/labs/{lab}/bills/b/events")[1]["received_at"]
    expected = {
        "lab_id": lab,
        "bill_id": "b",
        "integrator_id": "x",
        "event_type": "report.completed",
        "test_id": "t1",
        "certainty": "certain",
        "count": 1,
        "state": "awaiting_retry",
        "due_at": (parsed(received) + timedelta(seconds=400)).isoformat().replace("+00:00", "Z"),
        "evidence": {
            "position": completed,
            "event_type": "bill.completed",
            "event_time": at(BASE + 9),
            "received_at": received,
        },
        "request": None,
    }
    assert created < completed
    assert server.get(f"/v1/labs/{lab}/bills/b").json()["missing_events"] == [expected]
    assert server.items("/v1/missing-events", lab_id=lab) == [expected]


def test_reports_and_missing_events_of_a_bill_are_sorted_by_test(
    server: LedgerServer, lab: str
) -> None:
    tests: dict[str, str | None] = dict.fromkeys(("t9", "T", "é", "a", "t10"), "completed")
    server.record(event(lab, "b", "bill.completed", tests=tests))
    server.settle()
    bill = server.get(f"/v1/labs/{lab}/bills/b").json()
    assert [report["test_id"] for report in bill["reports"]] == sorted(tests)
    named = [missing["test_id"] for missing in bill["missing_events"] if missing["test_id"]]
    assert named == sorted(tests)


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


def test_the_projection_says_how_far_it_is(server: LedgerServer, lab: str) -> None:
    server.record(event(lab, "b"))
    head = server.settle()
    assert server.get("/v1/projection").json() == {
        "version": 1,
        "position": head,
        "head": head,
        "lag_events": 0,
        "lag_seconds": 0.0,
        "parked": 0,
        "rebuild": None,
    }


# --- filters ----------------------------------------------------------------------------------


def test_bills_are_filtered_by_each_of_their_filters(server: LedgerServer, lab: str) -> None:
    done: dict[str, str | None] = {"t": "completed"}
    server.record(
        event(lab, "open", integrator=f"{lab}-i1", tests={"t": None}),
        event(lab, "completed", "bill.completed", integrator=f"{lab}-i2", tests=done),
        event(lab, "deleted", "bill.deleted", integrator=f"{lab}-i2"),
        event(lab, "reopened", "bill.completed", tests=done),
    )
    last = server.record(event(lab, "reopened", "bill.created", at=BASE + 5, tests={"t": "new"}))[0]
    server.settle()

    def bills(**filters: object) -> list[str]:
        return [item["bill_id"] for item in server.items("/v1/bills", **filters)]

    assert bills(lab_id=lab) == ["reopened", "deleted", "completed", "open"]
    for state in ("open", "completed", "reopened", "deleted"):
        assert bills(lab_id=lab, state=state) == [state]
    assert bills(integrator_id=f"{lab}-i2") == ["deleted", "completed"]
    assert bills(integrator_id=f"{lab}-i2", state="deleted") == ["deleted"]
    assert bills(lab_id=lab, changed_after=last - 1) == ["reopened"]
    assert bills(lab_id=lab, changed_after=last) == []
    assert bills(lab_id="") == []


def test_reports_are_filtered_by_each_of_their_filters(server: LedgerServer, lab: str) -> None:
    first, second = server.record(
        event(lab, "b1", tests={f"{lab}-t1": " COMPLETED ", f"{lab}-t2": "pending"}),
        event(lab, "b2", tests={f"{lab}-t1": None}),
    )
    server.settle()

    def reports(**filters: object) -> set[tuple[str, str]]:
        items = server.items("/v1/reports", **filters)
        return {(item["bill_id"], item["test_id"].removeprefix(f"{lab}-")) for item in items}

    assert reports(lab_id=lab) == {("b1", "t1"), ("b1", "t2"), ("b2", "t1")}
    assert reports(test_id=f"{lab}-t1") == {("b1", "t1"), ("b2", "t1")}
    assert reports(lab_id=lab, completed="true") == {("b1", "t1")}
    assert reports(lab_id=lab, completed="false") == {("b1", "t2"), ("b2", "t1")}
    assert reports(lab_id=lab, changed_after=first) == {("b2", "t1")}
    assert reports(lab_id=lab, changed_after=second) == set()


def test_missing_events_are_filtered_by_each_of_their_filters(
    server: LedgerServer, lab: str
) -> None:
    server.record(
        event(lab, "b1", "bill.completed", tests={"t": "completed"}),
        event(lab, "b2", tests={"t": None}),
        event(lab, "b2", "report.completed", at=BASE + 1, tests={"t": "completed"}),
    )
    server.settle()

    def missing(**filters: object) -> set[tuple[str, str, str]]:
        items = server.items("/v1/missing-events", lab_id=lab, **filters)
        return {(item["bill_id"], item["event_type"], item["certainty"]) for item in items}

    created = ("b1", "bill.created", "certain")
    report = ("b1", "report.completed", "certain")
    completed = ("b2", "bill.completed", "possible")
    assert missing() == {created, report, completed}
    assert missing(certainty="certain") == {created, report}
    assert missing(certainty="possible") == {completed}
    assert missing(event_type="report.completed") == {report}
    assert missing(event_type="bill.deleted") == set()
    assert missing(state="awaiting_retry") == {created, report, completed}
    for state in ("overdue", "requested", "waived"):
        assert missing(state=state) == set()


def test_unreadable_events_are_filtered_by_reason(server: LedgerServer, lab: str) -> None:
    broken = server.send(f"broken {lab}".encode()).json()["position"]
    wrong = server.send({**event(lab, "b"), "labID": 1}).json()["position"]
    server.settle()

    def positions(**filters: object) -> list[int]:
        items = server.items("/v1/events/unreadable", after=broken - 1, **filters)
        return [item["position"] for item in items]

    assert positions() == [broken, wrong]
    assert positions(reason="not_json") == [broken]
    assert positions(reason="wrong_type") == [wrong]


def test_a_bill_comes_first_in_the_list_when_it_changed_last(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "b1"), event(lab, "b2"))
    server.record(event(lab, "b1", "bill.deleted"))
    server.settle()
    assert [item["bill_id"] for item in server.items("/v1/bills", lab_id=lab)] == ["b1", "b2"]
    changes = server.items("/v1/changes", after=server.head() - 3)
    assert [item["bill_id"] for item in changes] == ["b2", "b1"]


# --- cursors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_every_list_walked_in_parts_shows_each_item_once_and_in_order(
    server: LedgerServer, lab: str, limit: int
) -> None:
    tests: dict[str, str | None] = dict.fromkeys(("t1", "t2", "t3"), "completed")
    start = server.head()
    server.record(*(event(lab, f"b{n}", "bill.completed", tests=tests) for n in range(3)))
    server.record(*(event(lab, "b0", at=BASE + n) for n in range(2)))
    for n in range(3):
        server.send(f"broken {lab} {n}".encode())
    server.settle()
    lists: dict[str, dict[str, object]] = {
        "/v1/bills": {"lab_id": lab},
        "/v1/reports": {"lab_id": lab},
        "/v1/missing-events": {"lab_id": lab},
        "/v1/changes": {"after": start},
        "/v1/events": {"after": start},
        "/v1/events/unreadable": {"after": start},
        f"/v1/labs/{lab}/bills/b0/events": {},
    }
    for path, filters in lists.items():
        whole = server.get(path, **filters, limit=1000).json()
        assert whole["next"] is None
        assert len(whole["items"]) >= 3
        assert server.items(path, **filters, limit=limit) == whole["items"], path


def test_the_last_part_of_a_list_has_no_next_even_when_it_is_full(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "b1"), event(lab, "b2"))
    server.settle()
    assert server.get("/v1/bills", lab_id=lab, limit=2).json()["next"] is None


def test_a_list_has_a_hundred_items_unless_told_otherwise(server: LedgerServer, lab: str) -> None:
    tests: dict[str, str | None] = {f"t{n:03}": None for n in range(101)}
    server.record(event(lab, "b", tests=tests))
    server.settle()
    page = server.get("/v1/reports", lab_id=lab).json()
    assert len(page["items"]) == 100
    assert page["next"]


def test_a_walk_newest_first_is_not_disturbed_by_what_changes_meanwhile(
    server: LedgerServer, lab: str
) -> None:
    server.record(*(event(lab, f"b{n}") for n in range(4)))
    server.settle()
    page = server.get("/v1/bills", lab_id=lab, limit=2).json()
    server.record(event(lab, "b9"), event(lab, "b3", "bill.deleted"))
    server.settle()
    rest = server.get("/v1/bills", lab_id=lab, limit=9, cursor=page["next"]).json()
    assert [item["bill_id"] for item in rest["items"]] == ["b1", "b0"]


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "", "webhook-token-of-the-tests"])
def test_reading_needs_the_key(server: LedgerServer, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = server.anonymous.get(path, headers=headers)
    assert_problem(answer, 401)
    assert "bearer" in answer.headers["www-authenticate"].lower()


def test_an_unknown_bill_is_a_404_with_the_position_of_the_state(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "b"))
    head = server.settle()
    for path in ("", "/events"):
        answer = server.get(f"/v1/labs/{lab}/bills/other{path}")
        assert "other" in assert_problem(answer, 404)
        assert answer.headers["ledger-position"] == str(head)


def test_a_bill_of_another_lab_is_unknown(server: LedgerServer, lab: str) -> None:
    server.record(event(lab, "b"))
    server.settle()
    assert_problem(server.get(f"/v1/labs/{lab}x/bills/b"), 404)


BILL = "/v1/labs/no_lab/bills/no_bill"
BAD_PARAMETERS = [
    *((path, "limit", value) for path in (*LISTS, f"{BILL}/events") for value in ("0", "1001")),
    *((path, "limit", value) for path in LISTS[:1] for value in ("", "ten", "-1", "1;2", "٣x")),
    *((path, "cursor", value) for path in (*LISTS, f"{BILL}/events") for value in ("", "x", "é")),
    *((path, "min_position", value) for path in (*READS, BILL) for value in ("-1", "x")),
    *((path, "wait_ms", value) for path in READS[:1] for value in ("-1", "x", "60001")),
    *((path, "after", value) for path in LISTS[2:5] for value in ("-1", "x", str(2**63))),
    ("/v1/bills", "state", "closed"),
    ("/v1/bills", "changed_after", "-1"),
    ("/v1/reports", "changed_after", str(2**63)),
    ("/v1/reports", "completed", "maybe"),
    ("/v1/missing-events", "state", "lost"),
    ("/v1/missing-events", "event_type", "bill.create"),
    ("/v1/missing-events", "certainty", "sure"),
    ("/v1/events/unreadable", "reason", "ugly"),
    *(
        (BILL, name, value)
        for name in ("known_at", "as_of")
        for value in (
            "", "x", "now", "2024-01-20", "2024-01-20T10:00:00", "2024-13-20T10:00:00Z",
            "1705747800", "1e10", "-1", "\x00",
        )
    ),
    ("/v1/bills", "lab_id", "\x00"),
    ("/v1/bills", "integrator_id", "a\x00b"),
    ("/v1/reports", "test_id", "\x00"),
    ("/v1/reports", "lab_id", "\x00"),
    ("/v1/missing-events", "lab_id", "\x00"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "name", "value"), BAD_PARAMETERS)
def test_a_bad_query_parameter_is_refused_by_name(
    server: LedgerServer, path: str, name: str, value: str
) -> None:
    detail = assert_problem(server.get(path, **{name: value}), 400)
    assert name in detail
    assert "takes" in detail or "NUL" in detail


@pytest.mark.parametrize("name", ["known_at", "as_of"])
@pytest.mark.parametrize("value", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_time_at_the_end_of_the_calendar_is_no_fault_of_the_server(
    server: LedgerServer, name: str, value: str
) -> None:
    assert server.get(BILL, **{name: value}).status_code in {400, 404}


CURSORS = [[10**30], ["a"], [None], {}, [1, "\x00"], [1, "\ud800"], [10**17, "a", "b", "c", "d"]]
CURSORS += [[-(10**30), "a", "b", "c", "d"], [1, "\x00", "b", "c", "d"], [True], [1.5], [[]]]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("content", CURSORS)
def test_a_forged_cursor_is_refused_or_harmless(
    server: LedgerServer, path: str, content: object
) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    assert server.get(path, cursor=cursor).status_code in {200, 400}


@pytest.mark.parametrize("path", [*READS, BILL])
def test_an_unknown_query_parameter_is_refused_by_name(server: LedgerServer, path: str) -> None:
    assert "labid" in assert_problem(server.get(path, labid="x"), 400)


def test_a_mistyped_parameter_is_answered_with_the_one_that_was_meant(
    server: LedgerServer,
) -> None:
    assert "changed_after" in assert_problem(server.get("/v1/bills", changed_afer=1), 400)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/bill", "/v1/labs/a/bills", "/webhooks/flabsy"])
def test_an_unknown_path_is_a_404_problem(server: LedgerServer, path: str) -> None:
    assert_problem(server.get(path), 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_method_that_a_path_does_not_take_is_a_405_problem(
    server: LedgerServer, method: str
) -> None:
    answer = server.api.request(method, "/v1/bills")
    assert_problem(answer, 405)
    assert "GET" in answer.headers["allow"]


# --- positions --------------------------------------------------------------------------------


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


def test_the_log_can_be_read_while_no_projector_runs(server: LedgerServer, lab: str) -> None:
    with server.without_projector():
        (position,) = server.record(event(lab, "b"))
        assert server.items(f"/v1/labs/{lab}/bills/b/events")[0]["position"] == position
        assert server.items("/v1/events", after=position - 1)[0]["position"] == position
        assert server.anonymous.get("/health/ready").status_code == 200
        assert_problem(server.get(f"/v1/labs/{lab}/bills/b"), 404)


# --- time travel ------------------------------------------------------------------------------


def test_known_at_folds_what_had_been_received_by_then(server: LedgerServer, lab: str) -> None:
    late_first = list(reversed(whole_day(lab)))
    server.record(*late_first)
    server.settle()
    path = f"/v1/labs/{lab}/bills/bill_12345"
    items = server.items(f"{path}/events")
    for count, item in enumerate(items, start=1):
        bill = server.get(path, known_at=item["received_at"]).json()
        assert (bill["events"], bill["position"]) == (count, item["position"])
    only_completion = server.get(path, known_at=items[0]["received_at"]).json()
    assert only_completion["created_at"] is None
    assert {missing["event_type"] for missing in only_completion["missing_events"]} == {
        "bill.created",
        "report.completed",
    }
    before = parsed(items[0]["received_at"]) - timedelta(microseconds=1)
    assert_problem(server.get(path, known_at=before.isoformat()), 404)


def test_as_of_folds_what_had_happened_by_then(server: LedgerServer, lab: str) -> None:
    server.record(*reversed(whole_day(lab)))
    path = f"/v1/labs/{lab}/bills/bill_12345"
    seen = [
        server.get(path, as_of=at(BASE + offset)).json() for offset in (0, 59, 60, 120, 179, 180)
    ]
    assert [bill["reports_completed"] for bill in seen] == [0, 0, 1, 2, 2, 2]
    assert [bill["state"] for bill in seen] == ["open"] * 5 + ["completed"]
    assert_problem(server.get(path, as_of=at(BASE - 1)), 404)


def test_known_at_and_as_of_together_both_hold(server: LedgerServer, lab: str) -> None:
    server.record(*reversed(whole_day(lab)))
    path = f"/v1/labs/{lab}/bills/bill_12345"
    items = server.items(f"{path}/events")
    both = server.get(path, known_at=items[1]["received_at"], as_of=at(BASE + 120)).json()
    assert (both["events"], both["completed_at"], both["created_at"]) == (1, None, None)


def test_known_at_the_end_equals_now(server: LedgerServer, lab: str) -> None:
    server.record(*whole_day(lab)[1:])
    server.settle()
    path = f"/v1/labs/{lab}/bills/bill_12345"
    now = server.get(path).json()
    assert now["missing_events"]
    assert server.get(path, known_at=datetime.now(UTC).isoformat()).json() == now


def test_what_is_missing_is_judged_at_the_time_asked_for(server: LedgerServer, lab: str) -> None:
    server.record(event(lab, "b", "bill.deleted"), event(lab, "c", "bill.completed"))
    path = f"/v1/labs/{lab}/bills/c"
    received = parsed(server.items(f"{path}/events")[0]["received_at"])
    states = [
        server.get(path, known_at=(received + timedelta(seconds=seconds)).isoformat()).json()[
            "missing_events"
        ][0]["state"]
        for seconds in (0, 399, 400, 10_000)
    ]
    assert states == ["awaiting_retry", "awaiting_retry", "overdue", "overdue"]


@pytest.mark.parametrize(
    "time_text",
    [
        "2100-01-01T00:00:00Z",
        "2100-01-01T00:00:00z",
        "2100-01-01T00:00:00.123456Z",
        "2100-01-01T00:00:00%2B00:00",
        "2100-01-01T00:00:00+00:00",
        "2100-01-01T05:30:00+05:30",
        "2100-01-01T00:00:00-08:00",
    ],
)
@pytest.mark.parametrize("name", ["known_at", "as_of"])
def test_a_time_may_have_any_zone_and_an_unescaped_plus(
    server: LedgerServer, lab: str, name: str, time_text: str
) -> None:
    server.record(event(lab, "b"))
    answer = server.api.get(f"/v1/labs/{lab}/bills/b?{name}={time_text}")
    assert answer.status_code == 200, answer.text


# --- ids --------------------------------------------------------------------------------------

IDS = [
    "with/slash", "/", "//", "trailing/", "with space", " ", "é", "漢字", "\U0001f9ea", "100%",
    "%41", "%2F", "%252F", "a+b", ".", "..", "../..", "a?b", "a#b", "a&b=c", "a;b", "a:b", "a,b",
    '"', "'", "\\", "<b>", "{x}", "\x01", "\x7f", "\u202e", "bills", "events", "e\u0301", "null",
    "x" * 200, "\U0001f9ea" * 200,
]  # fmt: skip


def segment(text: str) -> str:
    return quote(text, safe="").replace(".", "%2E")


def test_a_bill_is_found_whatever_characters_its_ids_hold(server: LedgerServer, lab: str) -> None:
    labs = {f"{lab}{name}"[:200]: name for name in IDS}
    server.record(*(event(lab_id, bill_id, integrator=bill_id) for lab_id, bill_id in labs.items()))
    server.settle()
    for lab_id, bill_id in labs.items():
        path = f"/v1/labs/{segment(lab_id)}/bills/{segment(bill_id)}"
        answer = server.api.get(path)
        assert answer.status_code == 200, (lab_id, bill_id, answer.text)
        found = answer.json()
        assert (found["lab_id"], found["bill_id"]) == (lab_id, bill_id)
        events = server.api.get(f"{path}/events?limit=1")
        assert events.json()["items"][0]["body"]["data"]["billID"] == bill_id
        (listed,) = server.items("/v1/bills", lab_id=lab_id, integrator_id=bill_id)
        assert listed["bill_id"] == bill_id


@pytest.mark.parametrize("text", ["%00", "x" * 20_000, "%ff", "%ed%a0%80", "a%00b"])
def test_an_id_that_no_bill_can_have_is_unknown(server: LedgerServer, text: str) -> None:
    assert server.api.get(f"/v1/labs/{text}/bills/b").status_code in {400, 404}
    assert server.api.get(f"/v1/labs/l/bills/{text}/events").status_code in {400, 404}


def test_nul_in_a_path_does_not_lead_to_another_bill(server: LedgerServer) -> None:
    server.record(event("/", "/"))
    server.settle()
    assert server.api.get("/v1/labs/%00/bills/%00").status_code in {400, 404}


def test_very_long_query_values_find_nothing(server: LedgerServer) -> None:
    assert server.items("/v1/bills", lab_id="x" * 10_000) == []


# --- zones ------------------------------------------------------------------------------------


def test_times_are_in_utc_whatever_the_zone_of_the_database(
    own_server: LedgerServer, database_url: str, lab: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Kolkata'".encode())
    own_server.kill_server()
    own_server.kill_projector()
    own_server.start()
    own_server.record(*whole_day(lab)[1:])
    own_server.settle()
    text = "".join(
        own_server.get(path).text
        for path in (
            "/v1/events",
            "/v1/bills",
            "/v1/missing-events",
            f"/v1/labs/{lab}/bills/bill_12345",
            f"/v1/labs/{lab}/bills/bill_12345/events",
        )
    )
    assert "+05:30" not in text
    assert own_server.run("verify").returncode == 0


# --- service ----------------------------------------------------------------------------------


def test_the_server_says_that_it_lives_and_is_ready(server: LedgerServer) -> None:
    assert server.anonymous.get("/health/live").json() == {"status": "live"}
    assert server.anonymous.get("/health/ready").json() == {"status": "ready"}


def test_the_server_is_not_ready_on_an_old_schema_and_says_what_to_do(
    own_server: LedgerServer, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    answer = own_server.anonymous.get("/health/ready")
    assert "ledger migrate" in assert_problem(answer, 503)
    assert own_server.anonymous.get("/health/live").status_code == 200


def test_metrics_count_deliveries_by_outcome_and_tell_the_position(
    own_server: LedgerServer, lab: str
) -> None:
    payload = event(lab, "b")
    own_server.record(payload, payload, f"broken {lab}", *distinct(lab, 3))
    own_server.send(payload, token="wrong")
    own_server.settle()
    text = own_server.anonymous.get("/metrics").text
    assert 'ledger_deliveries_total{outcome="recorded"} 4.0' in text
    assert 'ledger_deliveries_total{outcome="duplicate"} 1.0' in text
    assert 'ledger_deliveries_total{outcome="unreadable"} 1.0' in text
    assert 'ledger_deliveries_refused_total{status="401"} 1.0' in text
    assert "ledger_head 5.0" in text
    assert "ledger_position 5.0" in text


def test_the_schema_served_is_the_one_that_is_checked_in(server: LedgerServer) -> None:
    answer = server.anonymous.get("/schema")
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json() == json.loads((ROOT / "api_schema" / "openapi.json").read_bytes())


def test_no_answer_tells_a_secret(server: LedgerServer) -> None:
    askings: list[Callable[[], httpx.Response]] = [
        lambda: server.send({}, token="wrong"),
        lambda: server.anonymous.get("/metrics"),
        lambda: server.anonymous.get("/health/ready"),
        lambda: server.anonymous.get("/schema"),
        lambda: server.get("/v1/projection"),
        lambda: server.get("/v1/nothing"),
    ]
    for ask in askings:
        answer = ask()
        shown = answer.text + str(answer.headers)
        assert server.token not in shown
        assert server.settings["LEDGER_ADMIN_KEY"] not in shown


def numbers_of(items: list[dict[str, Any]]) -> list[int]:
    return [item["position"] for item in items]


def test_the_log_is_listed_in_order_of_position_without_gaps(
    server: LedgerServer, lab: str
) -> None:
    before = server.head()
    server.record(*distinct(lab, 7))
    assert numbers_of(server.items("/v1/events", after=before, limit=3)) == list(
        range(before + 1, before + 8)
    )
