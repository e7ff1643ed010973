import hashlib
import itertools
import json
import tracemalloc
from collections import Counter, defaultdict
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ledger.simulator.history import COMPLETED, DAY, Event, History, TestData, bills, events, merge

pytestmark = pytest.mark.slow

START = 1_705_708_800  # 2024-01-20, midnight UTC

NULLABLE = {"type": ["string", "null"]}
PAYLOAD = {
    "type": "object",
    "additionalProperties": False,
    "required": ["labID", "eventType", "eventTime", "data"],
    "properties": {
        "labID": {"type": "string", "pattern": "^lab_"},
        "eventType": {
            "enum": ["bill.created", "report.completed", "bill.completed", "bill.deleted"]
        },
        "eventTime": {"type": "integer"},
        "data": {
            "type": "object",
            "additionalProperties": False,
            "required": ["billID", "billData"],
            "properties": {
                "billID": {"type": "string", "pattern": "^bill_"},
                "integratorID": NULLABLE,
                "reportURL": NULLABLE,
                "billData": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["status"],
                    "properties": {
                        "status": {"type": "string"},
                        "testData": {
                            "type": ["array", "null"],
                            "items": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["_id", "status"],
                                "properties": {"_id": {"type": "string"}, "status": NULLABLE},
                            },
                        },
                    },
                },
            },
        },
    },
}


def history(
    *, bills: int = 500, seed: int = 7, start: int = START, test_data: TestData = "snapshot"
) -> History:
    return History(seed=seed, start=start, bills=bills, labs=5, test_data=test_data)


def payload(event: Event) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(event.body)
    return decoded


def digest(made: History) -> str:
    return hashlib.sha256(b"\n".join(event.body for event in events(made))).hexdigest()


def listed_by(event: Event) -> list[dict[str, str | None]]:
    return payload(event)["data"]["billData"].get("testData") or []


def of_type(bill: list[Event], event_type: str) -> list[Event]:
    return [event for event in bill if event.event_type == event_type]


def test_the_same_seed_makes_the_same_bytes() -> None:
    assert digest(history()) == digest(history())
    # Pinned, so that neither another process nor another version of Python makes other bytes.
    assert digest(history()) == "9b50a2ea92b48ccaf0e3a8465cb04afffb89381b664c8578d8aad20b06cc91d5"


def test_another_seed_or_start_makes_other_bills() -> None:
    def ids(made: History) -> set[str]:
        return {event.bill_id for event in events(made)}

    assert not ids(history()) & ids(history(seed=8))
    assert not ids(history()) & ids(history(start=START + 1))


def test_another_seed_makes_another_day() -> None:
    def story(made: History) -> list[tuple[int, str]]:
        return [(event.event_time, event.event_type) for event in events(made)]

    assert story(history()) != story(history(seed=8))


@pytest.mark.parametrize("test_data", ["snapshot", "delta"])
def test_every_payload_has_the_documented_shape(test_data: TestData) -> None:
    validator = Draft202012Validator(PAYLOAD)
    for event in events(history(test_data=test_data)):
        validator.validate(payload(event))
        assert payload(event)["labID"] == event.lab_id
        assert payload(event)["eventType"] == event.event_type
        assert payload(event)["eventTime"] == event.event_time
        assert payload(event)["data"]["billID"] == event.bill_id


# In each of these the end of the day would otherwise fall between the two, in 4 and 27 by the last
# seconds of a bill, in 2 and 5 by a deletion that comes later.
@pytest.mark.parametrize("seed", [2, 4, 5, 27])
def test_the_day_does_not_end_between_the_last_report_and_the_completion(seed: int) -> None:
    for bill in bills(history(bills=1000, seed=seed)):
        if bill[-1].event_type == "report.completed" and not of_type(bill, "bill.completed"):
            assert any(test["status"] not in COMPLETED for test in listed_by(bill[-1]))


@pytest.mark.parametrize("test_data", ["snapshot", "delta"])
def test_no_two_events_are_equal(test_data: TestData) -> None:
    bodies = [event.body for event in events(history(test_data=test_data, bills=3000))]
    assert len(set(bodies)) == len(bodies)


def test_an_event_takes_about_350_bytes() -> None:
    sizes = [len(event.body) for event in events(history())]
    assert 300 < sum(sizes) / len(sizes) < 450


def test_events_come_in_order_of_event_time_within_the_day() -> None:
    times = [event.event_time for event in events(history())]
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] <= START + DAY


def test_events_are_those_of_the_bills() -> None:
    assert Counter(event.body for event in events(history())) == Counter(
        event.body for bill in bills(history()) for event in bill
    )


def test_a_bill_begins_with_its_creation_in_one_lab() -> None:
    for bill in bills(history()):
        assert bill[0].event_type == "bill.created"
        assert len({(event.lab_id, event.bill_id) for event in bill}) == 1
        assert [e.event_time for e in bill] == sorted(e.event_time for e in bill)


def test_a_bill_is_completed_only_when_all_its_reports_are() -> None:
    for bill in bills(history()):
        for event in of_type(bill, "bill.completed"):
            assert listed_by(event)
            assert all(test["status"] in COMPLETED for test in listed_by(event))


def test_each_report_that_a_completed_bill_lists_has_an_event() -> None:
    for bill in bills(history(test_data="delta")):
        reported = {test["_id"] for e in of_type(bill, "report.completed") for test in listed_by(e)}
        listed = {test["_id"] for e in of_type(bill, "bill.completed") for test in listed_by(e)}
        assert listed <= reported


def test_delta_lists_the_one_test_and_snapshot_all() -> None:
    for bill in bills(history(test_data="delta")):
        assert all(len(listed_by(event)) == 1 for event in of_type(bill, "report.completed"))
    longest = max(
        len(listed_by(event))
        for bill in bills(history(test_data="snapshot"))
        for event in of_type(bill, "report.completed")
    )
    assert longest >= 6


def test_the_day_holds_every_kind_of_bill() -> None:
    kinds: defaultdict[str, int] = defaultdict(int)
    for bill in bills(history(bills=1000)):
        first, types = payload(bill[0])["data"], [event.event_type for event in bill]
        kinds["at the desk, integrator absent"] += "integratorID" not in first
        kinds["at the desk, integrator null"] += first.get("integratorID", "") is None
        kinds["created without tests"] += not listed_by(bill[0])
        kinds["created with tests"] += bool(listed_by(bill[0]))
        kinds["deleted"] += types[-1] == "bill.deleted"
        kinds["never completed"] += "bill.completed" not in types
        kinds["completed, then reported"] += (
            "report.completed" in types[types.index("bill.completed") :]
            if "bill.completed" in types
            else False
        )
        kinds["completed twice"] += types.count("bill.completed") > 1
        statuses = {test["status"] for event in bill for test in listed_by(event)}
        kinds["odd spelling"] += " Completed" in statuses
        kinds["status null"] += None in statuses
    assert min(kinds.values()) > 5, dict(kinds)


def test_bills_are_made_only_when_asked_for() -> None:
    first = list(itertools.islice(events(history(bills=10**9)), 3))
    assert len(first) == 3


def test_memory_does_not_grow_with_the_number_of_bills() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in events(history(bills=count)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # Three full days and one: as many bills are open at a time.
    assert peak(15_000) < 1.3 * peak(5_000)


def test_merge_keeps_the_first_come_first_among_equal_times() -> None:
    groups = [(1, [(1, "a"), (5, "b")]), (1, [(1, "c"), (2, "d")]), (5, [(5, "e")])]
    assert [item for _, item in merge(iter(groups))] == ["a", "c", "d", "b", "e"]
