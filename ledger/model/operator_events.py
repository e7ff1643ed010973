"""Operators' decisions as events: about missing events, labs, and refused deliveries.

Source: docs/rules.md, "Operators' decisions". A decision is a JSON body in the event log with the
source `operator`. The structs below are the only statement of its shape. A decision about a missing
event names a bill and is folded with it; the others name a lab or nothing. Only the source makes a
body a decision: a webhook that looks like one is an ordinary event.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ledger.event_types import EventType
from ledger.model.digest import digest
from ledger.model.event import MAX_TIME, MIN_TIME, EventColumns, Identifier
from ledger.model.json_text import NUL_ESCAPE, is_utf8, too_deep
from ledger.model.missing_events import Certainty, Evidence
from ledger.model.unreadable import IS_HASH, NOT_BLANK, Unreadable, Validator, parse_body

Moment = Annotated[datetime, Meta(tz=True)]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=NOT_BLANK)]
Words = Annotated[str, Meta(min_length=1, max_length=2000, pattern=NOT_BLANK)]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Decision(Struct, frozen=True, kw_only=True, tag_field="decision", tag=True):
    """Who decided, and when (UTC).

    `by` is what they called themselves, `by_key` the id of their API key, which proves it; null for
    the command line.
    """

    at: Moment
    by: Name
    by_key: Name | None = None


class BillDecision(Decision, frozen=True, kw_only=True, tag=True):
    """A decision about a missing event, which its bill, type and test identify.

    `count` is the number of missing events that it is about. It is above 1 only for reports of
    unknown tests, of which more may turn out to be missing later.
    """

    lab_id: Identifier
    bill_id: Identifier
    event_type: EventType
    test_id: Identifier | None = None
    count: Number = 1

    @property
    def subject(self) -> tuple[str, str]:
        """The missing event that it is about, identified as in `MissingEvent.subject`."""
        return (self.event_type, self.test_id or "")


class EventWaived(BillDecision, frozen=True, kw_only=True, tag="event.waived"):
    """Nobody will ask for a missing event, for this reason."""

    reason: Words


class EventUnwaived(BillDecision, frozen=True, kw_only=True, tag="event.unwaived"):
    """Every waiver of a missing event that precedes this one in the log is taken back.

    So is the waiver implied by closing a line that asked for it; the line itself stays closed.
    """

    reason: Words | None = None


class EventRequested(BillDecision, frozen=True, kw_only=True, tag="event.requested"):
    """A line of a support request: a missing event as it was known at the time of the request.

    `previous` is the number of an earlier request that asked for it in vain.
    """

    request: Number
    certainty: Certainty
    integrator_id: str | None
    evidence: Evidence
    previous: Number | None = None


class EventClosed(BillDecision, frozen=True, kw_only=True, tag="event.closed"):
    """No event will answer this line of a support request, for this reason."""

    request: Number
    reason: Words


class Span(Struct, frozen=True, rename={"begin": "from", "end": "to"}):
    """The time from `begin` to before `end` in which all events of some labs were lost."""

    begin: Moment
    end: Moment
    labs: list[Identifier]


class RequestMade(Decision, frozen=True, kw_only=True, tag="request.made"):
    """A support request, for one lab if it has a `lab_id`. Its lines are separate decisions."""

    request: Number
    lab_id: Identifier | None
    note: Words | None
    lines: int
    windows: list[Span]


class RequestClosed(Decision, frozen=True, kw_only=True, tag="request.closed"):
    """Support will send nothing more for a request, nor for its windows.

    With `labs`, only for these; its windows are then closed by decisions of their own.
    """

    request: Number
    reason: Words
    labs: list[Identifier] | None = None


class WindowClosed(Decision, frozen=True, kw_only=True, tag="window.closed"):
    """All events lost in a window have come, or never will."""

    window: Span
    reason: Words


class BillExpected(Decision, frozen=True, kw_only=True, tag="bill.expected"):
    """A bill with this integrator id is expected by a time; None: it is no longer expected."""

    integrator_id: Identifier
    lab_id: Identifier | None
    expected_by: Moment | None


class SubscriptionSet(Decision, frozen=True, kw_only=True, tag="subscription.set"):
    """The event types that a lab is subscribed to at Flabs; None: those that all labs are."""

    lab_id: Identifier
    events: list[EventType] | None


class FlabsSubscribed(Decision, frozen=True, kw_only=True, tag="flabs.subscribed"):
    """Event types of a lab (null: of all labs) were subscribed at Flabs, or were so already.

    `party` is `corporateUser:ID` or `organization:ID`. `in_path` says that the endpoint is
    completed by a secret token. `token_id` is the webhook token that Flabs was given; null where it
    had one already.
    """

    lab_id: Identifier | None
    party: Name | None
    events: list[Identifier]
    endpoint: Words
    in_path: bool
    token_id: Name | None
    outcome: Literal["subscribed", "already"]


class FlabsTokenRotated(Decision, frozen=True, kw_only=True, tag="flabs.token_rotated"):
    """A rotation of the webhook token that Flabs has reached a step.

    `begun`: the token `token_id` is valid; `subscribed`: Flabs has it for every subscription;
    `finished`: the tokens `replaced` are dropped.
    """

    rotation: Number
    step: Literal["begun", "subscribed", "finished"]
    token_id: Name
    replaced: list[Name]


class DeliveriesAccepted(Decision, frozen=True, kw_only=True, tag="deliveries.accepted"):
    """Refused deliveries entered the log: how many, those recorded anew, and all their positions.

    The others were in the log already, and count as repeats.
    """

    count: Number
    recorded: int
    positions: list[int]


class DroppedDelivery(Struct, frozen=True):
    """A refused delivery that nobody will see again. `digest` is in hexadecimal."""

    lab_id: str
    bill_id: str
    event_type: str
    digest: str


class DeliveriesDropped(Decision, frozen=True, kw_only=True, tag="deliveries.dropped"):
    """Refused deliveries were dropped: how many, and which."""

    count: Number
    deliveries: list[DroppedDelivery]


Hash = Annotated[str, Meta(pattern=IS_HASH)]


class BodyErased(Decision, frozen=True, kw_only=True, tag="body.erased"):
    """The body of an event that is not folded was erased, for this reason.

    The event is named as the log's columns name it, `lab_id` and `bill_id` null where they are
    empty, and at its `position`. `digest` identifies it; `body_sha256` is that of the exact bytes.
    Both in hexadecimal.
    """

    position: Annotated[int, Meta(ge=1)]
    lab_id: Identifier | None
    bill_id: Identifier | None
    event_type: str
    digest: Hash
    body_sha256: Hash
    reason: Words


BODY_ERASED = "body.erased"

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
    | FlabsSubscribed
    | FlabsTokenRotated
    | DeliveriesAccepted
    | DeliveriesDropped
    | BodyErased
)


class LoggedDecision(Struct, frozen=True):
    """A decision about a bill, with its position in the log."""

    position: int
    decision: BillDecision


_DECODER: msgspec.json.Decoder[AnyDecision] = msgspec.json.Decoder(AnyDecision)
_VALIDATOR: Validator[AnyDecision] = Validator(AnyDecision)


def write_decision(decision: AnyDecision) -> bytes:
    """Return a decision as a body for the log."""
    return msgspec.json.encode(decision)


def read_decision(body: bytes) -> AnyDecision | Unreadable:
    """Read the body of an event whose source is `operator`; never raises."""
    decision = _read(body)
    if not isinstance(decision, Unreadable):
        for moment in _times(decision):
            if words := what_is_unstorable(moment):
                return Unreadable("out_of_range", "$", f"a time {words}")
    return decision


def _read(body: bytes) -> AnyDecision | Unreadable:
    # msgspec decides first, as it does for webhooks.
    if is_utf8(body) and not too_deep(body) and NUL_ESCAPE not in body:
        try:
            return _DECODER.decode(body)
        except msgspec.DecodeError:
            pass
    value = parse_body(body)
    return value if isinstance(value, Unreadable) else _VALIDATOR.read(value)


_FARTHEST_ZONE = timedelta(hours=16)


def what_is_unstorable(moment: datetime) -> str | None:
    """Return why the log or its readers' drivers cannot hold a time, None if they can."""
    if not 1971 <= moment.year < 2999:  # noqa: PLR2004 -- well within what the log can hold
        return "is not in the years 1971 to 2998"
    if abs(moment.utcoffset() or timedelta()) >= _FARTHEST_ZONE:
        return "is in a zone 16 hours or more from UTC, which PostgreSQL cannot store"
    return None


def is_storable(moment: datetime) -> bool:
    """Return whether the log and its readers' drivers can hold a time."""
    return what_is_unstorable(moment) is None


def _times(value: object) -> Iterator[datetime]:
    if isinstance(value, datetime):
        yield value
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from _times(getattr(value, name))
    elif isinstance(value, list):
        for part in value:
            yield from _times(part)


def _event_time(moment: datetime) -> int | None:
    """Return a time in Unix seconds, or None if it is not in the range of event times."""
    seconds = int(moment.timestamp())
    return seconds if MIN_TIME <= seconds <= MAX_TIME else None


def decision_columns(body: bytes) -> EventColumns:
    """Return the values of the log's columns for a decision; never raises."""
    decision = read_decision(body)
    if isinstance(decision, Unreadable):
        return EventColumns("", "", "", None, digest(body), decision)
    return EventColumns(
        lab_id=getattr(decision, "lab_id", None) or "",
        bill_id=getattr(decision, "bill_id", None) or "",
        event_type=str(type(decision).__struct_config__.tag),
        event_time=_event_time(decision.at),
        digest=digest(body),
        unreadable=None,
    )
