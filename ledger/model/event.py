"""Reads the bodies that Flabs sends and decides whether they are readable.

Source: docs/rules.md, "Readable events". The structs below are the only statement of the payload's
shape; `api_schema/webhook.json` is generated from them.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ledger.event_types import EVENT_TYPES
from ledger.model.digest import value_and_digest
from ledger.model.json_text import MAX_DEPTH, NUL_ESCAPE, is_storable_text, is_utf8, too_deep
from ledger.model.unreadable import Unreadable, Validator, parse_body

RANK: dict[str, int] = {event_type: rank for rank, event_type in enumerate(EVENT_TYPES)}
"""The event types that are folded, each with its rank among events of one second."""

MAX_LENGTH = 200
"""Characters that an identifier or an event type has at most."""

MIN_TIME = 946_684_800
"""2000-01-01T00:00:00Z in Unix seconds."""

MAX_TIME = 4_133_980_799
"""2100-12-31T23:59:59Z in Unix seconds."""

Identifier = Annotated[str, Meta(min_length=1, max_length=MAX_LENGTH)]
EventTime = Annotated[int, Meta(ge=MIN_TIME, le=MAX_TIME)]


class Test(Struct, frozen=True, gc=False, rename={"test_id": "_id"}):
    """One test of a bill, as an event describes it."""

    test_id: Identifier
    status: str | None = None


class BillData(Struct, frozen=True, gc=False, rename={"tests": "testData"}):
    """The bill's status and some or all of its tests, as an event describes them."""

    status: str | None = None
    tests: list[Test] | None = None


class Data(Struct, frozen=True, gc=False, rename="camel"):
    """The event's subject. Only `billID` is promised by the sender."""

    bill_id: Identifier = msgspec.field(name="billID")
    integrator_id: Annotated[str, Meta(max_length=MAX_LENGTH)] | None = msgspec.field(
        name="integratorID", default=None
    )
    bill_data: BillData | None = None
    report_url: str | None = msgspec.field(name="reportURL", default=None)


class Event(Struct, frozen=True, gc=False):
    """A readable event. Only a `BillEvent` is folded; others, like `lead.created`, are kept."""

    lab_id: Identifier = msgspec.field(name="labID")
    event_type: Identifier = msgspec.field(name="eventType")
    event_time: EventTime = msgspec.field(name="eventTime")


class BillEvent(Event, frozen=True, gc=False):
    """A readable event of one of the four types that are folded."""

    data: Data


class EventColumns(Struct, frozen=True):
    """The values of the log's columns for one body; '' or None where the body has no usable value.

    `event_time` is in Unix seconds, `digest` has 32 bytes.
    """

    lab_id: str
    bill_id: str
    event_type: str
    event_time: int | None
    digest: bytes
    unreadable: Unreadable | None

    @property
    def is_folded(self) -> bool:
        """Whether it is a readable event of one of the four types, without which no state is."""
        return self.unreadable is None and self.event_type in RANK


def read_event(body: bytes) -> Event | Unreadable:
    """Read one body; never raises, whatever the bytes are."""
    # msgspec decides for nearly all bodies. It does not look into strings that it skips, so UTF-8
    # is checked before; it refuses lone surrogates, but not NUL.
    if (body.isascii() or is_utf8(body)) and (len(body) <= _SHORT or not too_deep(body)):
        try:
            event = _BILL_EVENT.decode(body)
        except msgspec.DecodeError:
            return _read_slowly(body)
        if _BACKSLASH not in body or NUL_ESCAPE not in body:
            return event if event.event_type in RANK else _without_data(event)
    return _read_slowly(body)


def event_columns(body: bytes) -> EventColumns:
    """Return the values of the log's columns for a body from the sender; never raises."""
    value, digest = value_and_digest(body, deep=too_deep(body))
    event = read_event(body)
    if isinstance(event, Unreadable):
        return EventColumns(
            lab_id=_identifier(value, "labID"),
            bill_id=_identifier(value, "data", "billID"),
            event_type=_identifier(value, "eventType"),
            event_time=_event_time(value),
            digest=digest,
            unreadable=event,
        )
    return EventColumns(
        lab_id=event.lab_id,
        bill_id=event.data.bill_id
        if isinstance(event, BillEvent)
        else _identifier(value, "data", "billID"),
        event_type=event.event_type,
        event_time=event.event_time,
        digest=digest,
        unreadable=None,
    )


def event_without_body(lab_id: str, event_type: str, event_time: int | None) -> Event | None:
    """Return the event that the log's columns show once its body is erased.

    None if the body was unreadable. Every readable event fills these columns, and of another type
    than the four no unreadable one does.
    """
    if event_type in RANK or not (lab_id and event_type) or event_time is None:
        return None
    return Event(lab_id=lab_id, event_type=event_type, event_time=event_time)


def is_completed(status: str | None) -> bool:
    """Return whether a status means completed. No other status has a meaning to us."""
    return status is not None and len(status) >= _LENGTH and status.strip().lower() == _COMPLETED


_BACKSLASH = ord("\\")  # searching bytes for a number is faster than for a string of one
_SHORT = 2 * MAX_DEPTH + 80  # an event that nests too deeply has at least 84 bytes besides brackets
_COMPLETED = "completed"
_LENGTH = len(_COMPLETED)  # most other statuses are shorter and need not be trimmed

_BILL_EVENT = msgspec.json.Decoder(BillEvent)
_VALID_EVENT: Validator[Event] = Validator(Event)
_VALID_BILL_EVENT: Validator[BillEvent] = Validator(BillEvent)


def _read_slowly(body: bytes) -> Event | Unreadable:
    """Read a body that msgspec refuses or may be wrong about.

    Some such bodies are readable: an event of another type, whose data may hold anything; a key
    given twice, of which the last counts, as it does for the digest; a lone surrogate in a field
    that is ignored.
    """
    value = parse_body(body)
    if isinstance(value, Unreadable):
        return value
    event = _VALID_EVENT.read(value)
    if isinstance(event, Unreadable) or event.event_type not in RANK:
        return event
    return _VALID_BILL_EVENT.read(value)


def _without_data(event: BillEvent) -> Event:
    return Event(lab_id=event.lab_id, event_type=event.event_type, event_time=event.event_time)


def _identifier(value: Any, *path: str) -> str:  # noqa: ANN401 -- any JSON value
    """Return the identifier at a path of a JSON value, '' if there is none that can be stored."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    # Exactly a string: a number that is too long for other types is a subclass of it here.
    if type(value) is str and 1 <= len(value) <= MAX_LENGTH and is_storable_text(value):
        return value
    return ""


def _event_time(value: Any) -> int | None:  # noqa: ANN401 -- any JSON value
    seconds = value.get("eventTime") if isinstance(value, dict) else None
    return seconds if type(seconds) is int and MIN_TIME <= seconds <= MAX_TIME else None
