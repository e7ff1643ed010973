from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.model.bill import Bill, fold
from ledger.model.bill_history import LoggedEvent, logged_event
from ledger.model.event import BillEvent, Event, event_columns, read_event
from ledger.model.unreadable import Unreadable

# How fast the machine is today is no property of the fold.
at_leisure = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

START = 1_705_747_800

words = st.sampled_from(
    ["", "a", "A", " ", "\0", "\ud800", "\udc00", "é", "\U0001f600", "completed"]
)
statuses = st.sampled_from(["completed", " COMPLETED", "open", "", None])
tests = st.lists(
    st.fixed_dictionaries(
        {"_id": st.sampled_from("abc")}, optional={"status": statuses, "name": words}
    ),
    max_size=4,
)
bill_data = st.fixed_dictionaries({}, optional={"status": statuses, "testData": tests | st.none()})
data = st.fixed_dictionaries(
    {"billID": st.just("B")},
    optional={
        "integratorID": st.sampled_from(["i", "j", "", None]),
        "billData": bill_data | st.none(),
        "reportURL": st.sampled_from(["https://one", "https://two", "", None]),
    },
)
payloads = st.fixed_dictionaries(
    {
        "labID": st.just("L"),
        # Few seconds, so that the rules for events of one second have work to do.
        "eventTime": st.integers(START, START + 4),
        "eventType": st.sampled_from(
            ["bill.created", "report.completed", "report.completed", "bill.completed"]
        )
        | st.sampled_from(["bill.deleted", "bill.created"]),
        "data": data,
    }
)
histories = st.lists(payloads, min_size=1, max_size=9)


def log(bodies: list[bytes]) -> list[LoggedEvent]:
    """Take deliveries, one a minute, as the log does: a repeat is not appended."""
    logged: dict[bytes, LoggedEvent] = {}
    for position, body in enumerate(bodies, 1):
        event = read_event(body)
        assert isinstance(event, BillEvent)
        received_at = datetime.fromtimestamp(START, UTC) + timedelta(minutes=position)
        key = event_columns(body).digest
        logged.setdefault(key, logged_event(position, received_at, key, event, imported=False))
    return list(logged.values())


def encoded(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload).encode()


def spelled_otherwise(payload: dict[str, Any]) -> bytes:
    backwards = dict(reversed(payload.items()))
    return json.dumps(backwards, indent=1).encode()


def without_reception(bill: Bill) -> Any:  # noqa: ANN401 -- plain data, to be compared
    """Return what the sender said: all of a bill but when and where it was received."""
    said = msgspec.to_builtins(bill)
    for key in ("first_received_at", "last_received_at", "position"):
        del said["summary"][key]
    for missing in said["missing_events"]:
        del missing["evidence"]
    return said


@at_leisure
@given(histories, st.randoms(use_true_random=False))
def test_events_in_any_order_give_one_bill(
    payloads: list[dict[str, Any]], shuffling: random.Random
) -> None:
    events = log([encoded(payload) for payload in payloads])
    bill = fold("L", "B", events)
    shuffling.shuffle(events)
    assert fold("L", "B", events) == bill


@at_leisure
@given(histories, st.randoms(use_true_random=False))
def test_what_the_sender_said_does_not_depend_on_the_order_of_arrival(
    payloads: list[dict[str, Any]], shuffling: random.Random
) -> None:
    bodies = [encoded(payload) for payload in payloads]
    bill = fold("L", "B", log(bodies))
    shuffling.shuffle(bodies)
    assert without_reception(fold("L", "B", log(bodies))) == without_reception(bill)


@at_leisure
@given(histories, st.data())
def test_repeated_deliveries_change_nothing(
    payloads: list[dict[str, Any]], draw: st.DataObject
) -> None:
    repeats = draw.draw(st.lists(st.sampled_from(payloads), max_size=9))
    bodies = [encoded(payload) for payload in payloads]
    repeated = [spelled_otherwise(payload) for payload in repeats]
    assert fold("L", "B", log(bodies + repeated)) == fold("L", "B", log(bodies))


@at_leisure
@given(histories, st.integers(0, 9))
def test_events_read_in_two_parts_give_the_bill_of_all(
    payloads: list[dict[str, Any]], split: int
) -> None:
    events = log([encoded(payload) for payload in payloads])
    parts = [*events[split:], *events[:split]]
    assert fold("L", "B", parts) == fold("L", "B", events)


@at_leisure
@given(histories)
def test_a_bill_holds_together(payloads: list[dict[str, Any]]) -> None:
    events = log([encoded(payload) for payload in payloads])
    bill = fold("L", "B", events)
    summary = bill.summary
    assert summary.events == len(events)
    assert summary.reports_total == len(bill.reports)
    assert summary.reports_completed == sum(each.evidence is not None for each in bill.reports)
    assert all((each.completed_at is None) == (each.evidence is None) for each in bill.reports)
    assert (summary.state == "deleted") == (summary.deleted_at is not None)
    assert summary.state != "deleted" or bill.missing_events == []
    assert summary.findings == sorted(set(summary.findings))
    positions = {event.position for event in events}
    assert all(each.evidence.position in positions for each in bill.missing_events)
    rows = [(each.test_id or "", each.event_type) for each in bill.missing_events]
    assert rows == sorted(set(rows))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["billID", "billData", "testData", "_id", "status", "labID"]) | words,
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@at_leisure
@given(payloads, st.sampled_from(["labID", "eventType", "eventTime", "data", "more"]), json_values)
def test_any_json_is_read_without_error_and_folded_if_readable(
    payload: dict[str, Any], field: str, value: object
) -> None:
    body = json.dumps({**payload, field: value}).encode()
    event = read_event(body)
    found = event_columns(body)
    assert (found.unreadable is not None) == isinstance(event, Unreadable)
    if isinstance(event, BillEvent):
        received_at = datetime.fromtimestamp(START, UTC)
        logged = logged_event(1, received_at, found.digest, event, imported=False)
        bill = fold(event.lab_id, event.data.bill_id, [logged])
        assert (bill.summary.events, bill.summary.bill_id) == (1, found.bill_id)


@at_leisure
@given(payloads, words)
def test_how_long_a_body_is_and_how_it_is_spelled_makes_no_other_event(
    payload: dict[str, Any], more: str
) -> None:
    """A short and plain one is read by a shorter way."""
    body = json.dumps({**payload, "more": more}).encode()
    assert read_event(body) == read_event(body + b" " * 1000)
    if b"\\ud" not in body:  # a lone surrogate can be spelled in one way only
        spelled = json.dumps(json.loads(body), ensure_ascii=False).encode()
        assert read_event(spelled) == read_event(body)


@at_leisure
@given(
    st.binary()
    | st.tuples(payloads, st.binary(max_size=3), st.integers(0, 300)).map(
        lambda cut: encoded(cut[0])[: cut[2]] + cut[1] + encoded(cut[0])[cut[2] + len(cut[1]) :]
    )
)
def test_any_bytes_are_read_without_error(body: bytes) -> None:
    assert isinstance(read_event(body), Event | Unreadable)
    assert len(event_columns(body).digest) == 32
