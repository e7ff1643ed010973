"""Our explanation of an unreadable body agrees with msgspec's verdict, in words of our own."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.model.digest import is_json
from ledger.model.event import RANK, BillEvent, Event, event_columns, read_event
from ledger.model.json_text import MAX_DEPTH, is_storable_text, too_deep
from ledger.model.operator_events import AnyDecision, read_decision, write_decision
from ledger.model.unreadable import Unreadable, Validator
from tests.support.decisions import (
    at,
    closed,
    expected_bill,
    request_closed,
    request_made,
    requested,
    span,
    subscribed,
    subscribed_at_flabs,
    token_rotated,
    waived,
    window_closed,
)
from tests.support.examples import examples

at_leisure = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

EXAMPLE: dict[str, Any] = {
    "labID": "lab_67890",
    "eventType": "bill.completed",
    "eventTime": 1_705_747_800,
    "data": {
        "billID": "bill_12345",
        "integratorID": "i",
        "billData": {
            "status": "completed",
            "testData": [{"_id": "a", "status": "completed"}, {"_id": "b", "status": None}],
        },
        "reportURL": "https://reports.flabs.in/bill/bill_12345",
    },
}
WINDOW = span(at(-600), at(-300), "L", "M")
DECISIONS: list[AnyDecision] = [
    waived(),
    requested(),
    closed(),
    request_made(3, lab="L", lines=2, windows=[WINDOW]),
    request_closed(),
    window_closed(WINDOW),
    expected_bill(lab="L"),
    subscribed("L", ["bill.created"]),
    subscribed_at_flabs("L", "bill.created"),
    token_rotated(),
]

GONE = object()

Path = tuple[str | int, ...]

EDGES: list[Any] = [
    None, True, False, 0, 1, -1, 0.0, 1.0, 1_705_747_800.0, 946_684_799, 946_684_800,
    4_133_980_799, 4_133_980_800, 2**31 - 1, 2**31, 2**63, 2**64, -(2**64), 10**30, 10**4100,
    "", " ", "x" * 200, "x" * 201, "é" * 200, "\U0001f600" * 200, "\U0001f600" * 201, "a\0b",
    "bill.created", "lead.created", "completed", "2024-01-20T10:00:00Z", "2024-01-20",
    "2024-01-20T10:00:00", "0001-01-01T00:00:00+14:00", "certain", "event.closed",
    [], {}, [None], [{}], [{"_id": "c"}], [{"_id": ""}], {"billID": "B"}, {"testData": []},
]  # fmt: skip
values = st.recursive(
    st.sampled_from(EDGES)
    | st.text(max_size=3)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["_id", "status", "from", "at", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def paths(value: Any, here: Path = ()) -> list[Path]:  # noqa: ANN401 -- any JSON value
    """Return the path of every member and entry of a JSON value, however deep."""
    members = value.items() if isinstance(value, dict) else ()
    entries = enumerate(value) if isinstance(value, list) else ()
    below = [paths(part, (*here, key)) for key, part in (*members, *entries)]
    return [here, *(path for found in below for path in found)]


@st.composite
def mutated(draw: st.DrawFn, original: dict[str, Any]) -> Any:  # noqa: ANN401 -- any JSON value
    """Return a JSON value in which up to three parts were removed, added or replaced."""
    value: Any = copy.deepcopy(original)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(paths(value)))
        if not path:
            continue
        place: Any = value
        for key in path[:-1]:
            place = place[key]
        match draw(st.sampled_from(["remove", "add", "replace", "replace", "replace"])):
            case "remove":
                del place[path[-1]]
            case "add" if isinstance(place, dict):
                place["more"] = copy.deepcopy(draw(values))
            case _:
                place[path[-1]] = copy.deepcopy(draw(values))
    return value


def strings(value: Any) -> list[str]:  # noqa: ANN401 -- a struct and what is in it
    """Return every string in a struct: the strings that the rules name, and no others."""
    if isinstance(value, msgspec.Struct):
        value = [getattr(value, name) for name in value.__struct_fields__]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def verdict(body: bytes, kind: Any) -> Any:  # noqa: ANN401 -- a type, and a struct of it
    """Return what msgspec makes of a body, None if it refuses it or holds what nobody can store."""
    try:
        struct = msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError):
        return None
    return struct if all(map(is_storable_text, strings(struct))) else None


def changed(original: dict[str, Any]) -> Iterator[Any]:
    """Yield a JSON value with each part removed, and replaced by each of the edge values."""
    for *way, last in paths(original)[1:]:
        for edge in (GONE, *EDGES):
            value: Any = copy.deepcopy(original)
            place = value
            for key in way:
                place = place[key]
            if edge is GONE:
                del place[last]
            else:
                place[last] = edge
            yield value


# --- agreement with msgspec -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("original", "kind"),
    [(EXAMPLE, BillEvent), *((json.loads(write_decision(one)), AnyDecision) for one in DECISIONS)],
)
def test_a_changed_part_is_explained_exactly_if_msgspec_refuses_it(
    original: dict[str, Any],
    kind: Any,  # noqa: ANN401 -- a union of structs is no `type`
) -> None:
    validator = Validator[Any](kind)
    for value in changed(original):
        found = validator.read(value)
        expected = verdict(json.dumps(value).encode(), kind)
        assert (None if isinstance(found, Unreadable) else found) == expected, value


@settings(at_leisure, max_examples=examples(300))
@given(mutated(EXAMPLE))
def test_an_event_is_explained_exactly_if_msgspec_refuses_it(value: Any) -> None:  # noqa: ANN401
    body = json.dumps(value).encode()
    envelope = verdict(body, Event)
    folded = envelope is None or envelope.event_type in RANK
    expected = verdict(body, BillEvent) if folded else envelope
    found = read_event(body)
    assert (None if isinstance(found, Unreadable) else found) == expected
    assert event_columns(body).unreadable == (found if isinstance(found, Unreadable) else None)


@settings(at_leisure, max_examples=examples(300))
@given(mutated(EXAMPLE))
def test_the_explanation_of_an_event_builds_what_msgspec_builds(value: Any) -> None:  # noqa: ANN401
    found = Validator[BillEvent](BillEvent).read(value)
    expected = verdict(json.dumps(value).encode(), BillEvent)
    assert (None if isinstance(found, Unreadable) else found) == expected


@pytest.mark.slow
@settings(at_leisure, max_examples=examples(300))
@given(st.sampled_from(DECISIONS).flatmap(lambda one: mutated(json.loads(write_decision(one)))))
def test_a_decision_is_explained_exactly_if_msgspec_refuses_it(value: Any) -> None:  # noqa: ANN401
    found = Validator[AnyDecision](AnyDecision).read(value)
    body = json.dumps(value).encode()
    assert (None if isinstance(found, Unreadable) else found) == verdict(body, AnyDecision)
    read = read_decision(body)
    if isinstance(found, Unreadable) or not isinstance(read, Unreadable):
        assert read == found
    else:
        assert read.reason == "out_of_range"  # a time outside the years that the log can hold


@at_leisure
@given(
    st.binary(max_size=9)
    | st.tuples(mutated(EXAMPLE), st.binary(max_size=3), st.integers(0, 400)).map(
        lambda cut: _spliced(json.dumps(cut[0]).encode(), cut[1], cut[2])
    )
)
def test_a_body_is_no_json_to_the_reader_exactly_if_it_is_none_to_the_digest(body: bytes) -> None:
    found = read_event(body)
    reason = found.reason if isinstance(found, Unreadable) else None
    assert (reason in {"not_json", "nested_too_deeply"}) == (not is_json(body))
    assert (reason == "nested_too_deeply") == too_deep(body)


def _spliced(body: bytes, part: bytes, place: int) -> bytes:
    return body[:place] + part + body[place + len(part) :]


# --- the sentences ----------------------------------------------------------------------------


def event(**fields: object) -> bytes:
    return json.dumps({**EXAMPLE, **fields}).encode()


def event_with_data(**fields: object) -> bytes:
    return event(data={"billID": "B", **fields})


# They are stored in the state: whoever changes one raises FOLD_VERSION.
@pytest.mark.parametrize(
    ("body", "reason", "path", "detail"),
    [
        (b"", "not_json", "$", "the body is empty"),
        (b" \r\n", "not_json", "$", "the body is empty"),
        (b"{} {}", "not_json", "$", "the body is not exactly one JSON value"),
        (b'{"x": NaN}', "not_json", "$", "the body is not exactly one JSON value"),
        (b"\xef\xbb\xbf{}", "not_json", "$", "the body is not exactly one JSON value"),
        (b"\xff", "not_json", "$", "the body is not UTF-8"),
        (
            b"[" * (MAX_DEPTH + 1),
            "nested_too_deeply",
            "$",
            "arrays and objects are nested deeper than 200 levels",
        ),
        (b"[]", "not_an_object", "$", "the body must be an object, not an array"),
        (b"{}", "missing_field", "$.labID", "labID is missing"),
        (event(labID=5), "wrong_type", "$.labID", "labID must be a string, not an integer"),
        (
            event(labID=""),
            "out_of_range",
            "$.labID",
            "labID must have 1 to 200 characters, not 0",
        ),
        (
            event(eventTime=1.5),
            "wrong_type",
            "$.eventTime",
            "eventTime must be an integer, not a number with a fraction or an exponent",
        ),
        (
            event(eventTime=True),
            "wrong_type",
            "$.eventTime",
            "eventTime must be an integer, not a boolean",
        ),
        (
            event(eventTime=0),
            "out_of_range",
            "$.eventTime",
            "eventTime must not be less than 946684800",
        ),
        (
            event(eventTime=1_705_747_800_000),
            "out_of_range",
            "$.eventTime",
            "eventTime must not be greater than 4133980799",
        ),
        (
            event().replace(b"1705747800", b"-" + b"9" * 5000),
            "out_of_range",
            "$.eventTime",
            "eventTime must not be less than 946684800",
        ),
        (
            event(data=None),
            "wrong_type",
            "$.data",
            "data must be an object, not null",
        ),
        (
            event_with_data(integratorID="i" * 201),
            "out_of_range",
            "$.data.integratorID",
            "integratorID must have at most 200 characters, not 201",
        ),
        (
            event_with_data(billData={"testData": [{"_id": "a"}, "b"]}),
            "wrong_type",
            "$.data.billData.testData[1]",
            "testData[1] must be an object, not a string",
        ),
        (
            event_with_data(billData={"status": {}}),
            "wrong_type",
            "$.data.billData.status",
            "status must be a string or null, not an object",
        ),
        (
            event_with_data(reportURL="\0"),
            "forbidden_character",
            "$.data.reportURL",
            "reportURL holds NUL or a lone surrogate, which PostgreSQL cannot store",
        ),
        (
            event(labID=5, eventTime="soon"),
            "wrong_type",
            "$.labID",
            "labID must be a string, not an integer",
        ),
    ],
)
def test_the_first_fault_of_an_event_is_explained(
    body: bytes, reason: str, path: str, detail: str
) -> None:
    found = read_event(body)
    assert isinstance(found, Unreadable)
    assert (found.reason, found.path, found.detail) == (reason, path, detail)


def decision(**fields: object) -> bytes:
    return json.dumps({**json.loads(write_decision(waived())), **fields}).encode()


@pytest.mark.parametrize(
    ("body", "reason", "path", "detail"),
    [
        (b"", "not_json", "$", "the body is empty"),
        (b"null", "not_an_object", "$", "the body must be an object, not null"),
        (b"{}", "missing_field", "$.decision", "decision is missing"),
        (
            decision(decision=None),
            "wrong_type",
            "$.decision",
            "decision must be a string, not null",
        ),
        (
            decision(decision="event.waved"),
            "out_of_range",
            "$.decision",
            (
                "decision must be one of bill.expected, body.erased, deliveries.accepted, "
                "deliveries.dropped, event.closed, event.requested, event.unwaived, "
                "event.waived, flabs.subscribed, flabs.token_rotated, request.closed, "
                "request.made, subscription.set, window.closed"
            ),
        ),
        (
            decision(event_type="lead.created"),
            "out_of_range",
            "$.event_type",
            (
                "event_type must be one of bill.completed, bill.created, bill.deleted, "
                "report.completed"
            ),
        ),
        (decision(reason=" \t"), "out_of_range", "$.reason", "reason must not be blank"),
        (
            decision(at="2024-01-20T10:00:00"),
            "wrong_type",
            "$.at",
            "at must be a time like 2024-01-20T10:00:00Z",
        ),
        (
            decision(at="1969-12-31T23:59:59Z"),
            "out_of_range",
            "$",
            "a time is not in the years 1971 to 2998",
        ),
        *(
            (
                decision(at=f"2024-01-20T10:00:00{offset}"),
                "out_of_range",
                "$",
                "a time is in a zone 16 hours or more from UTC, which PostgreSQL cannot store",
            )
            for offset in ("+16:00", "-16:00", "+23:59")
        ),
        (
            decision(by="\0"),
            "forbidden_character",
            "$.by",
            "by holds NUL or a lone surrogate, which PostgreSQL cannot store",
        ),
        (
            decision(more=[0])[:-2] + b"[" * MAX_DEPTH,
            "nested_too_deeply",
            "$",
            "arrays and objects are nested deeper than 200 levels",
        ),
    ],
)
def test_the_first_fault_of_a_decision_is_explained(
    body: bytes, reason: str, path: str, detail: str
) -> None:
    found = read_decision(body)
    assert isinstance(found, Unreadable)
    assert (found.reason, found.path, found.detail) == (reason, path, detail)
