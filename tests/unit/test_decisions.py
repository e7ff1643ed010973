"""Operators' decisions as bodies of the log: written, read again, and what is none."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.eventlog.append import Delivery
from ledger.eventlog.read import LogRow
from ledger.model.event import event_columns
from ledger.model.operator_events import (
    AnyDecision,
    LoggedDecision,
    decision_columns,
    read_decision,
    write_decision,
)
from ledger.model.unreadable import Unreadable
from ledger.projection.read_event import read_row
from tests.support.decisions import (
    COMPLETED,
    DECIDED,
    accepted,
    at,
    closed,
    dropped,
    expected_bill,
    report_of,
    request_closed,
    request_made,
    requested,
    span,
    subscribed,
    unwaived,
    waived,
    window_closed,
)

at_leisure = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

WINDOW = span(at(-600), at(-300), "L", "M")
OF_A_BILL: list[AnyDecision] = [
    waived(),
    waived(report_of("a"), count=7, when=0.25),
    unwaived(),
    requested(COMPLETED, 2, previous=1),
    closed(),
]
OF_NONE: list[AnyDecision] = [
    request_made(3, lab="L", lines=2, windows=[WINDOW]),
    request_made(),
    request_closed(),
    window_closed(WINDOW),
    expected_bill(lab="L"),
    expected_bill(expected_by=None),
    subscribed("L", ["bill.created"]),
    subscribed("L", []),
    subscribed("L", None),
    accepted(),
    dropped(),
]


def name(decision: Any) -> str:  # noqa: ANN401 -- as pytest calls it
    return str(type(decision).__struct_config__.tag)


def plain(decision: AnyDecision, /, **changed: object) -> dict[str, Any]:
    return {**json.loads(write_decision(decision)), **changed}


def refused(body: bytes) -> Unreadable:
    """Return why a body is no decision; whatever it is, the log takes it."""
    found = read_decision(body)
    assert isinstance(found, Unreadable)
    delivery = Delivery.of(body, received_at=DECIDED, source="operator")
    assert delivery.columns.unreadable == found
    assert (delivery.columns.bill_id, delivery.columns.event_time) == ("", None)
    return found


@pytest.mark.parametrize("decision", [*OF_A_BILL, *OF_NONE], ids=name)
def test_a_decision_is_read_as_it_was_written(decision: AnyDecision) -> None:
    assert read_decision(write_decision(decision)) == decision


@pytest.mark.parametrize("decision", [*OF_A_BILL, *OF_NONE], ids=name)
def test_the_log_s_columns_say_what_it_is_about_and_when_it_was_taken(
    decision: AnyDecision,
) -> None:
    found = decision_columns(write_decision(decision))
    assert found.unreadable is None
    assert found.event_type == name(decision)
    assert found.event_time == int(decision.at.timestamp())
    assert found.lab_id == (getattr(decision, "lab_id", None) or "")
    assert found.bill_id == ("B" if decision in OF_A_BILL else "")


def row(body: bytes, source: Any) -> LogRow:  # noqa: ANN401 -- as the log has it
    examined = Delivery.of(body, received_at=DECIDED, source=source).columns
    return LogRow(1, DECIDED, examined.digest, examined.lab_id, examined.bill_id, body, source)


@pytest.mark.parametrize("source", ["webhook", "import"])
@pytest.mark.parametrize("decision", [*OF_A_BILL, *OF_NONE], ids=name)
def test_a_body_that_looks_like_a_decision_is_none_unless_an_operator_s(
    decision: AnyDecision, source: str
) -> None:
    body = write_decision(decision)
    assert isinstance(read_row(row(body, source)), Unreadable)
    # Nor does it come near the bill that it names.
    assert (event_columns(body).lab_id, event_columns(body).bill_id) == ("", "")
    taken = read_row(row(body, "operator"))
    assert (taken.decision if isinstance(taken, LoggedDecision) else taken) == decision


def test_an_event_and_a_decision_in_one_body_are_what_the_source_says() -> None:
    event = {
        "labID": "L",
        "eventType": "bill.created",
        "eventTime": 1_705_747_800,
        "data": {"billID": "B"},
    }
    body = json.dumps({**plain(waived()), **event}).encode()
    assert type(read_row(row(body, "webhook"))).__name__ == "LoggedEvent"
    assert isinstance(read_row(row(body, "operator")), LoggedDecision)


def test_an_event_that_an_operator_is_said_to_have_sent_is_unreadable() -> None:
    body = b'{"labID":"L","eventType":"bill.created","eventTime":1705747800,"data":{"billID":"B"}}'
    assert refused(body).path == "$.decision"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"broken",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"decision":"event.waived"}',
        b'{"decision":"event.waved"}',
        b'{"decision":null}',
        b'{"decision":"event.waived"' + b" " * 1000,
    ],
)
def test_a_broken_body_is_no_decision(body: bytes) -> None:
    assert refused(body).detail


@pytest.mark.parametrize(
    ("decision", "changed"),
    [
        (waived(), {"reason": ""}),
        (waived(), {"reason": "x" * 2001}),
        (waived(), {"by": ""}),
        (waived(), {"at": "2024-01-20T13:00:00"}),
        (waived(), {"at": "yesterday"}),
        (waived(), {"at": "0001-01-01T00:00:00+14:00"}),
        (waived(), {"at": "9999-12-31T23:59:59-14:00"}),
        (waived(), {"event_type": "lead.created"}),
        (waived(), {"count": 0}),
        (waived(), {"lab_id": ""}),
        (waived(), {"lab_id": "x" * 201}),
        (waived(), {"bill_id": None}),
        (waived(), {"bill_id": "a\0b"}),
        (waived(), {"test_id": "a\0b"}),
        (requested(), {"request": 2**40}),
        (requested(), {"request": 2**70}),
        (requested(), {"request": "1"}),
        (requested(), {"certainty": "sure"}),
        (requested(), {"evidence": {}}),
        (request_made(), {"request": 2**31}),
        (request_made(), {"lab_id": "a\0b"}),
        (request_made(), {"windows": [{"from": "2024-01-20T13:00:00Z"}]}),
        (request_closed(), {"request": 2**31}),
        (window_closed(WINDOW), {"window": None}),
        (expected_bill(), {"integrator_id": ""}),
        (expected_bill(), {"integrator_id": "a\0b"}),
        (expected_bill(), {"expected_by": "0001-01-01T00:00:00+14:00"}),
        (expected_bill(), {"expected_by": "9999-12-31T23:59:59-14:00"}),
        (expected_bill(), {"expected_by": "2024-01-20"}),
        (subscribed("L", []), {"lab_id": None}),
        (subscribed("L", []), {"events": ["lead.created"]}),
        (subscribed("L", []), {"events": "bill.created"}),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, dict) else name(value),
)
def test_a_decision_with_a_wrong_part_is_none(
    decision: AnyDecision, changed: dict[str, object]
) -> None:
    assert refused(json.dumps(plain(decision, **changed)).encode()).detail


@pytest.mark.parametrize("field", ["lab_id", "bill_id", "test_id"])
def test_a_lone_surrogate_in_an_id_is_refused(field: str) -> None:
    body = json.dumps(plain(waived(), **{field: "\ud800"})).encode()
    assert refused(body).path == f"$.{field}"


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert read_decision(json.dumps(plain(waived(), mood="good")).encode()) == waived()


def test_the_digest_is_that_of_the_json_value() -> None:
    body = write_decision(waived())
    respelled = json.dumps(dict(reversed(json.loads(body).items())), indent=1).encode()
    assert decision_columns(respelled).digest == decision_columns(body).digest
    assert decision_columns(write_decision(waived(when=1))).digest != decision_columns(body).digest


_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.lists(st.text(max_size=3), max_size=2),
    st.just({}),
)


@at_leisure
@given(st.sampled_from([*OF_A_BILL, *OF_NONE]), st.data(), _values)
def test_any_value_of_any_field_is_read_or_refused_and_never_raises(
    decision: AnyDecision, data: st.DataObject, value: object
) -> None:
    field = data.draw(st.sampled_from(sorted(plain(decision))))
    body = json.dumps(plain(decision, **{field: value})).encode()
    found = read_decision(body)
    examined = Delivery.of(body, received_at=DECIDED, source="operator").columns
    assert (examined.unreadable is None) == (not isinstance(found, Unreadable))
    if not isinstance(found, Unreadable):
        assert read_decision(write_decision(found)) == found


@at_leisure
@given(st.binary())
def test_any_bytes_are_read_without_error(body: bytes) -> None:
    refused(body)
