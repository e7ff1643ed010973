"""Operators' decisions for tests, each with all that a case does not care about filled in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from psycopg import Connection

from ledger.event_types import EVENT_TYPES, EventType
from ledger.eventlog import read
from ledger.eventlog.append import Delivery, append
from ledger.model.missing_events import Evidence
from ledger.model.operator_events import (
    AnyDecision,
    BillExpected,
    DeliveriesAccepted,
    DeliveriesDropped,
    DroppedDelivery,
    EventClosed,
    EventRequested,
    EventUnwaived,
    EventWaived,
    FlabsSubscribed,
    FlabsTokenRotated,
    RequestClosed,
    RequestMade,
    Span,
    SubscriptionSet,
    WindowClosed,
    write_decision,
)
from ledger.model.operators import Operator
from ledger.operations.policy import Policy
from ledger.projection import parallel, rebuild, verify
from ledger.projection.parallel import chunks
from ledger.projection.projector import follow_once
from tests.support.histories import RECEIVED, TYPES, body
from tests.support.sessions import empty_log, state_rows

DECIDED = datetime(2024, 1, 20, 13, tzinfo=UTC)
"""The time of decision that `at` counts from, in seconds."""

SECOND = timedelta(seconds=1)
WHO = "ann"
OPERATOR = Operator(WHO)
WHY = "asked by telephone"
EVIDENCE = Evidence(1, "bill.completed", DECIDED, DECIDED)
POLICY = Policy(
    events=EVENT_TYPES,
    retry_interval=120 * SECOND,
    retry_count=3,
    budget=400 * SECOND,
    ask_again_after=7 * 86_400 * SECOND,
)

Subject = tuple[EventType, str | None]
"""Event type and test."""

CREATED: Subject = ("bill.created", None)
COMPLETED: Subject = ("bill.completed", None)
REPORTS: Subject = ("report.completed", None)
Key = tuple[str, str]


def at(seconds: float) -> datetime:
    """Return a time of decision."""
    return DECIDED + seconds * SECOND


def report_of(test: str) -> Subject:
    """Name the report of a test."""
    return ("report.completed", test)


def waived(
    subject: Subject = CREATED, *, key: Key = ("L", "B"), count: int = 1, when: float = 0
) -> EventWaived:
    return EventWaived(
        at=at(when),
        by=WHO,
        lab_id=key[0],
        bill_id=key[1],
        event_type=subject[0],
        test_id=subject[1],
        count=count,
        reason=WHY,
    )


def unwaived(
    subject: Subject = CREATED, *, key: Key = ("L", "B"), when: float = 0
) -> EventUnwaived:
    return EventUnwaived(
        at=at(when),
        by=WHO,
        lab_id=key[0],
        bill_id=key[1],
        event_type=subject[0],
        test_id=subject[1],
    )


def requested(
    subject: Subject = CREATED,
    request: int = 1,
    *,
    key: Key = ("L", "B"),
    count: int = 1,
    when: float = 0,
    previous: int | None = None,
) -> EventRequested:
    return EventRequested(
        at=at(when),
        by=WHO,
        lab_id=key[0],
        bill_id=key[1],
        event_type=subject[0],
        test_id=subject[1],
        count=count,
        request=request,
        certainty="certain",
        integrator_id=None,
        evidence=EVIDENCE,
        previous=previous,
    )


def closed(
    subject: Subject = CREATED,
    request: int = 1,
    *,
    key: Key = ("L", "B"),
    count: int = 1,
    when: float = 0,
    reason: str = WHY,
) -> EventClosed:
    return EventClosed(
        at=at(when),
        by=WHO,
        lab_id=key[0],
        bill_id=key[1],
        event_type=subject[0],
        test_id=subject[1],
        count=count,
        request=request,
        reason=reason,
    )


def request_made(
    request: int = 1,
    *,
    lab: str | None = None,
    lines: int = 0,
    windows: Sequence[Span] = (),
    when: float = 0,
) -> RequestMade:
    return RequestMade(
        at=at(when),
        by=WHO,
        request=request,
        lab_id=lab,
        note=None,
        lines=lines,
        windows=list(windows),
    )


def request_closed(request: int = 1, *, when: float = 0) -> RequestClosed:
    return RequestClosed(at=at(when), by=WHO, request=request, reason=WHY)


def span(begin: datetime, end: datetime, *labs: str) -> Span:
    return Span(begin, end, list(labs))


def window_closed(window: Span, *, when: float = 0) -> WindowClosed:
    return WindowClosed(at=at(when), by=WHO, window=window, reason=WHY)


def expected_bill(
    integrator_id: str = "one",
    expected_by: float | None = 0,
    *,
    lab: str | None = None,
    when: float = 0,
) -> BillExpected:
    return BillExpected(
        at=at(when),
        by=WHO,
        integrator_id=integrator_id,
        lab_id=lab,
        expected_by=None if expected_by is None else at(expected_by),
    )


def subscribed(lab: str, events: list[EventType] | None, *, when: float = 0) -> SubscriptionSet:
    return SubscriptionSet(at=at(when), by=WHO, lab_id=lab, events=events)


def subscribed_at_flabs(lab: str | None, *events: str, when: float = 0) -> FlabsSubscribed:
    return FlabsSubscribed(
        at=at(when),
        by=WHO,
        lab_id=lab,
        party=None,
        events=list(events),
        endpoint="https://ledger.example/webhooks/flabs",
        in_path=False,
        token_id=None,
        outcome="subscribed",
    )


def token_rotated(when: float = 0) -> FlabsTokenRotated:
    return FlabsTokenRotated(
        at=at(when), by=WHO, rotation=1, step="begun", token_id="t", replaced=["s"]
    )


def accepted(*positions: int, when: float = 0) -> DeliveriesAccepted:
    return DeliveriesAccepted(
        at=at(when), by=WHO, count=max(len(positions), 1), recorded=0, positions=list(positions)
    )


def dropped(*, lab: str = "L", when: float = 0) -> DeliveriesDropped:
    return DeliveriesDropped(
        at=at(when), by=WHO, count=1, deliveries=[DroppedDelivery(lab, "B", "", "00" * 32)]
    )


def decided(decision: AnyDecision) -> Delivery:
    """Make the delivery that puts a decision into the log, received when it was taken."""
    return Delivery.of(write_decision(decision), received_at=decision.at, source="operator")


PARKED = "B9"
"""A bill whose fold fails in some tests, always."""

# Few names and times, so that much falls together.
_names = st.sampled_from(["one", "two", "three"])
some_events = st.builds(
    body,
    st.sampled_from([*TYPES, "report.completed", "bill.completed", "lead.created"]),
    bill=st.sampled_from(["B1", "B1", "B2", PARKED]),
    lab=st.sampled_from(["L1", "L1", "L2"]),
    at=st.integers(0, 3),
    tests=st.dictionaries(st.sampled_from("ab"), st.sampled_from(["completed", "open"])),
    status=st.sampled_from([None, "completed"]),
    integratorID=st.none() | _names,
)
_keys = st.tuples(st.sampled_from(["L1", "L2"]), st.sampled_from(["B1", "B2", "never", PARKED]))
_subjects = st.sampled_from([CREATED, COMPLETED, report_of("a"), report_of("b")])
_numbers = st.integers(1, 3)
_times = st.integers(0, 9)
_labs = st.none() | st.sampled_from(["L1", "L2"])
_windows = st.builds(
    lambda begin, length, labs: span(
        RECEIVED + timedelta(seconds=begin), RECEIVED + timedelta(seconds=begin + length), *labs
    ),
    _times,
    _numbers,
    st.lists(st.sampled_from(["L1", "L2"]), max_size=2),
)


def _about(subjects: st.SearchStrategy[Subject]) -> st.SearchStrategy[AnyDecision]:
    return (
        st.builds(waived, subjects, key=_keys, count=_numbers, when=_times)
        | st.builds(unwaived, subjects, key=_keys, when=_times)
        | st.builds(requested, subjects, _numbers, key=_keys, count=_numbers, when=_times)
        | st.builds(closed, subjects, _numbers, key=_keys, when=_times)
        | st.builds(request_made, _numbers, lab=_labs, windows=st.lists(_windows, max_size=2))
        | st.builds(request_closed, _numbers, when=_times)
        | st.builds(window_closed, _windows, when=_times)
        | st.builds(accepted, _numbers, when=_times)
        | st.builds(dropped, when=_times)
        | st.builds(expected_bill, _names, st.none() | _times, lab=_labs, when=_times)
        | st.builds(subscribed_at_flabs, _labs, st.just("bill.created"), when=_times)
        | st.builds(token_rotated, when=_times)
        | st.builds(
            subscribed,
            st.sampled_from(["L1", "L2", "never"]),
            st.none() | st.lists(st.sampled_from(["bill.created", "bill.completed"])),
            when=_times,
        )
    )


# What became of reports of unknown tests depends on which of them came first, too.
decisions_of_known = _about(_subjects)
some_decisions = _about(_subjects | st.just(REPORTS))


SAID = {
    "bill": "lab_id, bill_id, integrator_id, state, flabs_status, created_at, completed_at,"
    " deleted_at, report_url, reports_total, reports_completed, findings, events, missing"
    " FROM state.bill",
    "report": "lab_id, bill_id, test_id, status, completed_at, evidence FROM state.report",
    "missing_event": "lab_id, bill_id, event_type, test_id, certainty, count, decided, request,"
    " integrator_id, evidence_received_at, requested_at, waived_at FROM state.missing_event",
    "request_line": "lab_id, bill_id, request, event_type, test_id, state, reason, integrator_id,"
    " certainty, count, evidence_position, evidence_event_type, evidence_event_time,"
    " evidence_received_at, previous, requested_at, requested_by FROM state.request_line",
    "former_integrator": "* FROM state.former_integrator",
    "parked_bill": "lab_id, bill_id, error FROM state.parked_bill",
    "support_request": "lab_id, request, made_at, made_by, note FROM state.support_request",
    "support_request_window": "lab_id, nth, request, begins_at, ends_at, labs"
    " FROM state.support_request_window",
    "support_request_closing": "lab_id, request, closed_at, closed_by, reason"
    " FROM state.support_request_closing",
    "loss_window_closing": "lab_id, begins_at, ends_at, labs, closed_at, closed_by, reason"
    " FROM state.loss_window_closing",
    "subscription": "DISTINCT ON (lab_id) lab_id, events FROM state.subscription"
    " ORDER BY lab_id, position DESC",
    "flabs_subscription": "lab_id, party, events, endpoint, in_path, outcome, token_id,"
    " subscribed_at FROM state.flabs_subscription",
    "expectation": "lab_id, integrator_id, expected_by FROM state.expectation",
    "expected_bill": "integrator_id, lab_id, expected_by, is_seen FROM state.expected_bill",
    "lab": "* FROM state.lab",
    "delay": "* FROM state.delay",
    "lab_hour": "* FROM state.lab_hour",
}
"""What depends on no position, and so on no order of events."""


class Log:
    """A log that can be emptied for the next example, which nobody but its owner can do."""

    def __init__(self, owner: Connection, service: Connection) -> None:
        self._owner = owner
        self.service = service
        self.url = f"{owner.info.dsn} password={owner.info.password}"

    def empty(self) -> None:
        empty_log(self._owner)

    @contextmanager
    def undone(self, table: str) -> Iterator[None]:
        """Put back, at the end of the block, what a table held at its beginning."""
        self.service.execute(f"CREATE TEMP TABLE saved AS TABLE state.{table}".encode())
        yield
        put_back = f"TRUNCATE state.{table}; INSERT INTO state.{table} TABLE saved"
        self.service.execute(f"{put_back}; DROP TABLE saved".encode())

    def follow(self, batches: list[list[Delivery]], limit: int) -> dict[str, list[str]]:
        """Return the state that the projector makes, following between the batches."""
        self.empty()
        for batch in batches:
            append(self.service, batch)
            follow_once(self.service, read.head(self.service), limit=limit)
        while follow_once(self.service, read.head(self.service), limit=limit).events:
            pass
        return state_rows(self.service)

    def verify_and_rebuild(self, size: int) -> str | None:
        """Make the state anew, in chunks of so many events; return what was wrong before."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parallel, "chunks", partial(chunks, events=size))
            found = verify.verify(self.url, processes=1, on_progress=lambda *_: None).difference
            rebuild.rebuild(self.url, processes=1, started_at=DECIDED, on_progress=lambda *_: None)
        return found.words if found else None

    def said(self) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: sorted(self.service.execute(f"SELECT {query}".encode()), key=repr)
            for table, query in SAID.items()
        }
