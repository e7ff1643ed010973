"""What operators decide, as events: asked for, waived, closed, expected, subscribed.

A decision is a JSON body in the event log like any other, with the source `operator`; the structs
below are its only statement. One about a missing event names its bill and is folded with it. The
others are of no bill: they name a lab or nothing.

A body that merely looks like one, in a webhook, is not one: the source decides.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ledger.model.digest import digest
from ledger.model.event import EventTime, EventType, Examined, Identifier, Unreadable
from ledger.model.json_text import is_whole
from ledger.model.missing_events import Certainty, Evidence

Moment = Annotated[datetime, Meta(tz=True)]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]
Words = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\S")]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Decision(Struct, frozen=True, kw_only=True, tag_field="decision", tag=True):
    """Who decided, and when (UTC)."""

    at: Moment
    by: Name


class BillDecision(Decision, frozen=True, kw_only=True, tag=True):
    """Something decided about a missing event, named by its bill, type and test.

    `count` says how many of those that are missing it is about: of reports whose tests are not
    known, more may be missing later.
    """

    lab_id: Identifier
    bill_id: Identifier
    event_type: EventType
    test_id: Identifier | None = None
    count: Number = 1

    @property
    def subject(self) -> tuple[str, str]:
        """What it is about, as `MissingEvent.subject` says it."""
        return (self.event_type, self.test_id or "")


class EventWaived(BillDecision, frozen=True, kw_only=True, tag="event.waived"):
    """A missing event will not be asked for, and why."""

    reason: Words


class EventUnwaived(BillDecision, frozen=True, kw_only=True, tag="event.unwaived"):
    """Every waiver of a missing event that precedes this one in the log is taken back.

    So is the waiver implied by closing a line that asked for it; the line itself stays closed.
    """

    reason: Words | None = None


class EventRequested(BillDecision, frozen=True, kw_only=True, tag="event.requested"):
    """A line of a support request: what was asked for, as it was known then.

    `previous` is the number of the request that asked for it before, in vain.
    """

    request: Number
    certainty: Certainty
    integrator_id: str | None
    evidence: Evidence
    previous: Number | None = None


class EventClosed(BillDecision, frozen=True, kw_only=True, tag="event.closed"):
    """A line of a support request will not be answered by an event, and why."""

    request: Number
    reason: Words


class Span(Struct, frozen=True, rename={"begin": "from", "end": "to"}):
    """A time of which everything is asked of some labs, from `begin` to before `end`."""

    begin: Moment
    end: Moment
    labs: list[Identifier]


class RequestMade(Decision, frozen=True, kw_only=True, tag="request.made"):
    """A support request; its lines are decisions of their own. `lab_id`: of this lab alone."""

    request: Number
    lab_id: Identifier | None
    note: Words | None
    lines: int
    windows: list[Span]


class RequestClosed(Decision, frozen=True, kw_only=True, tag="request.closed"):
    """A support request was answered as far as it ever will be: its windows, too."""

    request: Number
    reason: Words


class WindowClosed(Decision, frozen=True, kw_only=True, tag="window.closed"):
    """All that was lost in a time has come, or never will."""

    window: Span
    reason: Words


class BillExpected(Decision, frozen=True, kw_only=True, tag="bill.expected"):
    """A bill with this integrator id is expected by a time; None: it is not expected any more."""

    integrator_id: Identifier
    lab_id: Identifier | None
    expected_by: Moment | None


class SubscriptionSet(Decision, frozen=True, kw_only=True, tag="subscription.set"):
    """The event types that are subscribed for a lab at Flabs; None: as for all labs."""

    lab_id: Identifier
    events: list[EventType] | None


AnyDecision = (
    EventWaived
    | EventUnwaived
    | EventRequested
    | EventClosed
    | RequestMade
    | RequestClosed
    | WindowClosed
    | BillExpected
    | SubscriptionSet
)


class LoggedDecision(Struct, frozen=True):
    """A decision about a bill, with its position in the log."""

    position: int
    decision: BillDecision


_DECODER: msgspec.json.Decoder[AnyDecision] = msgspec.json.Decoder(AnyDecision)


def write_decision(decision: AnyDecision) -> bytes:
    """Return a decision as a body for the log."""
    return msgspec.json.encode(decision)


def read_decision(body: bytes) -> AnyDecision | Unreadable:
    """Read the body of an event whose source is `operator`; never raises."""
    try:
        decision = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        return Unreadable("wrong_type", "$", f"no decision of this version: {error}")
    except ValueError as error:
        return Unreadable("not_json", "$", str(error))
    for name in ("lab_id", "bill_id", "test_id", "integrator_id"):
        text = getattr(decision, name, None) or ""
        if "\x00" in text or not is_whole(text):
            detail = "an identifier holds NUL or half a surrogate pair"
            return Unreadable("forbidden_character", f"$.{name}", detail)
    if not all(map(is_storable, _moments(decision))):
        return Unreadable("out_of_range", "$", "a time is not of this millennium")
    return decision


def is_storable(moment: datetime) -> bool:
    """Tell whether the log and the readers' drivers can hold a time, in whatever zone."""
    return 1971 <= moment.year < 2999  # noqa: PLR2004 -- a day within what the log takes


def _moments(value: object) -> Iterator[datetime]:
    if isinstance(value, datetime):
        yield value
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from _moments(getattr(value, name))
    elif isinstance(value, list):
        for part in value:
            yield from _moments(part)


def _event_time(moment: datetime) -> int | None:
    """Return the second, or None for one that no event can have: the log's column has none such."""
    try:
        return msgspec.convert(int(moment.timestamp()), EventTime)
    except msgspec.ValidationError:
        return None


def examine_decision(body: bytes) -> Examined:
    """Work out what the log's plain columns hold of a decision; never raises."""
    decision = read_decision(body)
    if isinstance(decision, Unreadable):
        return Examined("", "", "", None, digest(body), decision)
    return Examined(
        lab_id=getattr(decision, "lab_id", None) or "",
        bill_id=getattr(decision, "bill_id", ""),
        event_type=str(type(decision).__struct_config__.tag),
        event_time=_event_time(decision.at),
        digest=digest(body),
        unreadable=None,
    )
