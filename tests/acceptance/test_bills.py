"""Bills, their reports and what they miss, as those who read over HTTP meet them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import quote

import httpx
import pytest

from tests.support.answers import assert_problem, at, parsed
from tests.support.payloads import BASE, event, whole_day
from tests.support.server import LedgerServer

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


def test_bills_read_at_the_same_time_are_each_their_own(server: LedgerServer, lab: str) -> None:
    """Some are there, some are not, some are asked for twice: one query answers them all."""
    server.record(
        *(event(lab, f"b{number}", integrator=f"i{number}") for number in range(0, 60, 2))
    )
    server.settle()
    numbers = [number % 60 for number in range(300)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: server.get(f"/v1/labs/{lab}/bills/b{n}"), numbers))
    for number, answer in zip(numbers, answers, strict=True):
        if number % 2:
            assert f"'b{number}'" in assert_problem(answer, 404)
        else:
            assert answer.json()["bill_id"] == f"b{number}"
            assert answer.json()["integrator_id"] == f"i{number}"


# --- the short way ----------------------------------------------------------------------------


@pytest.mark.parametrize("bill", ["whole", "with/slash", "mißt ✓", "misses", "nowhere"])
def test_a_bill_is_answered_alike_on_the_short_way_and_by_the_framework(
    server: LedgerServer, lab: str, bill: str
) -> None:
    """A query sends the same question the long way."""
    if bill != "nowhere":
        tests = {"t1": "completed", "t2": "pending" if bill != "misses" else "completed"}
        kind = "bill.completed" if bill == "misses" else "bill.created"
        server.record(event(lab, bill, kind, tests=tests, integrator="x"))
        server.settle()
    path = f"/v1/labs/{quote(lab, safe='')}/bills/{quote(bill, safe='')}"
    short, long = server.get(path), server.get(path, wait_ms=0)
    assert short.status_code == long.status_code == (404 if bill == "nowhere" else 200)
    assert short.content == long.content
    told = ("content-type", "content-length", "ledger-position")
    assert [short.headers[name] for name in told] == [long.headers[name] for name in told]
    assert bool(short.json().get("missing_events")) == (bill == "misses")


@pytest.mark.parametrize("key", [None, "", "wrong", "Bearer wrong", "webhook-token-of-the-tests"])
def test_the_short_way_asks_for_the_key_as_well(
    server: LedgerServer, lab: str, key: str | None
) -> None:
    server.record(event(lab, "bill", tests={"t1": "completed"}))
    server.settle()
    path = f"/v1/labs/{lab}/bills/bill"
    headers = {} if key is None else {"Authorization": key}
    answers = [
        httpx.get(server.url + path, headers=headers, params=more) for more in ({}, {"wait_ms": 0})
    ]
    for answer in answers:
        assert_problem(answer, 401)
    assert answers[0].content == answers[1].content


def test_many_readers_of_many_bills_get_their_own(server: LedgerServer, lab: str) -> None:
    names = [f"bill_{number}" for number in range(150)]
    server.record(*(event(lab, name, tests={f"t_{name}": "completed"}) for name in names))
    server.settle()

    def read(name: str) -> bool:
        bill = server.get(f"/v1/labs/{lab}/bills/{name}").json()
        return [bill["bill_id"], bill["reports"][0]["test_id"]] == [name, f"t_{name}"]

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(read, names * 3))
