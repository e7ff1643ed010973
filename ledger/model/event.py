"""Reads the bodies that Flabs sends: what makes one readable, and what makes two of them one event.

Source: design, "Readable, unreadable, unknown" and "Identity". The structs below are the only
statement of the payload's shape; `api_schema/webhook.json` is generated from them.
"""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from ledger.model.digest import identify
from ledger.model.json_text import MAX_DEPTH, is_utf8, is_whole, refuse_constant, too_deep

RANK = {"bill.created": 0, "report.completed": 1, "bill.completed": 2, "bill.deleted": 3}
"""The event types that are folded, each with its place among events of one second."""

EventType = Literal["bill.created", "report.completed", "bill.completed", "bill.deleted"]
Identifier = Annotated[str, Meta(min_length=1, max_length=200)]
EventTime = Annotated[int, Meta(ge=946_684_800, le=4_133_980_799)]
"""Unix seconds, from 2000-01-01T00:00:00Z to 2100-12-31T23:59:59Z."""


class Test(Struct, frozen=True, gc=False, rename={"test_id": "_id"}):
    """One test of a bill as an event tells of it."""

    test_id: Identifier
    status: str | None = None


class BillData(Struct, frozen=True, gc=False, rename={"tests": "testData"}):
    """What an event says of the bill's status and of some or all of its tests."""

    status: str | None = None
    tests: list[Test] | None = None


class Data(Struct, frozen=True, gc=False, rename="camel"):
    """The event's subject. Only `billID` is promised by the sender."""

    bill_id: Identifier = msgspec.field(name="billID")
    integrator_id: Annotated[str, Meta(max_length=200)] | None = msgspec.field(
        name="integratorID", default=None
    )
    bill_data: BillData | None = None
    report_url: str | None = msgspec.field(name="reportURL", default=None)


class Event(Struct, frozen=True, gc=False):
    """A readable event; one that is no `BillEvent` is kept and not folded (`lead.created`, ...)."""

    lab_id: Identifier = msgspec.field(name="labID")
    event_type: Identifier = msgspec.field(name="eventType")
    event_time: EventTime = msgspec.field(name="eventTime")


class BillEvent(Event, frozen=True, gc=False):
    """A readable event of one of the four types that are folded."""

    data: Data


Reason = Literal[
    "not_json",
    "nested_too_deeply",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "forbidden_character",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class Unreadable(Struct, frozen=True):
    """Why a body is no event: a code, a JSON path, and words."""

    reason: Reason
    path: str
    detail: str


class Examined(Struct, frozen=True):
    """What the log's plain columns hold of a body: '' or None where the body says nothing usable.

    `event_time` is in Unix seconds, `digest` has 32 bytes.
    """

    lab_id: str
    bill_id: str
    event_type: str
    event_time: int | None
    digest: bytes
    unreadable: Unreadable | None


def read_event(body: bytes) -> Event | Unreadable:
    """Read one body; never raises, whatever the bytes are."""
    # Without a byte that may be no UTF-8, without escapes and not nested too deeply, as nearly all
    # are: then what the decoder takes is readable.
    if body.isascii() and _BACKSLASH not in body and (len(body) <= _SHORT or not too_deep(body)):
        try:
            event = _BILL_EVENT.decode(body)
        except msgspec.DecodeError:
            return _read(body, deep=too_deep(body))
        if event.event_type in RANK:
            return event
    return _read(body, deep=too_deep(body))


def examine(body: bytes) -> Examined:
    """Work out all that the log wants to know of a body beside its bytes; never raises."""
    value, digest = identify(body, deep=too_deep(body))
    event = read_event(body)
    if isinstance(event, Unreadable):
        return Examined(
            lab_id=_identifier(value, "labID"),
            bill_id=_identifier(value, "data", "billID"),
            event_type=_identifier(value, "eventType"),
            event_time=_event_time(value),
            digest=digest,
            unreadable=event,
        )
    return Examined(
        lab_id=event.lab_id,
        bill_id=event.data.bill_id
        if isinstance(event, BillEvent)
        else _identifier(value, "data", "billID"),
        event_type=event.event_type,
        event_time=event.event_time,
        digest=digest,
        unreadable=None,
    )


def is_completed(status: str | None) -> bool:
    """Tell whether a status word means completed: the only word with a meaning to us."""
    return status is not None and len(status) >= _LENGTH and status.strip().lower() == _COMPLETED


_BACKSLASH = ord("\\")  # a number is looked for in bytes faster than a string of one
_SHORT = 2 * MAX_DEPTH + 80  # for an event that nests too deeply: it has 84 bytes beside brackets
_COMPLETED = "completed"
_LENGTH = len(_COMPLETED)  # most other words are shorter and need not be trimmed


# --- decoding ---------------------------------------------------------------------------------


def _read(body: bytes, *, deep: bool) -> Event | Unreadable:
    if deep:
        detail = f"arrays and objects nest deeper than {MAX_DEPTH}"
        return Unreadable("nested_too_deeply", "$", detail)
    if not is_utf8(body):
        return Unreadable("not_json", "$", "the body is not UTF-8")
    try:
        event = _decode(body)
    except msgspec.ValidationError as error:
        return _explain(str(error))
    except ValueError as error:  # msgspec.DecodeError and json.JSONDecodeError are both of these
        return Unreadable("not_json", "$", str(error))
    # A raw NUL or half a surrogate pair is no JSON, so only an escape can bring one in.
    if b"\\" in body and (path := _forbidden_character(event)):
        detail = "an identifier holds NUL or half a surrogate pair, which PostgreSQL cannot store"
        return Unreadable("forbidden_character", path, detail)
    return event


_BILL_EVENT = msgspec.json.Decoder(BillEvent)


def _decode(body: bytes) -> Event:
    """Decode by type: of a type that is not folded only the envelope has to be right."""
    try:
        event = _BILL_EVENT.decode(body)
    except msgspec.DecodeError:  # also of a value that is not as the structs say
        return _decode_slowly(body)
    return event if event.event_type in RANK else _without_data(event)


def _decode_slowly(body: bytes) -> Event:
    """Decode what msgspec refuses and may be right all the same.

    That is: an event of another type; a key given twice, of which the last counts, as it does for
    the digest; half a surrogate pair in a field that we ignore.
    """
    value = json.loads(
        body.decode(),
        parse_constant=refuse_constant,
        parse_int=_int_or_infinity,
        object_pairs_hook=_encodable_members,
    )
    try:
        return _convert(value)
    except UnicodeEncodeError:  # half a pair where no string is wanted: have it say that
        return _convert(_without_halves(value))


def _convert(value: Any) -> Event:  # noqa: ANN401 -- any JSON value
    try:
        event = msgspec.convert(value, BillEvent)
    except msgspec.ValidationError:
        other = msgspec.convert(value, Event)
        if other.event_type in RANK:
            raise
        return other
    return event if event.event_type in RANK else _without_data(event)


def _encodable_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    # No field of ours has a name that cannot be encoded, and msgspec cannot look at one.
    return {key: value for key, value in members if is_whole(key)}


def _without_halves(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    """Put NUL, which is as forbidden and as long, for each half of a surrogate pair."""
    if isinstance(value, dict):
        return {key: _without_halves(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_without_halves(entry) for entry in value]
    return _HALF_A_PAIR.sub("\0", value) if isinstance(value, str) else value


_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def _int_or_infinity(text: str) -> int | float:
    # int() refuses very long numbers; a float is as wrong a type, with the same message.
    return int(text) if len(text) < _LONG_NUMBER else float("inf")


_LONG_NUMBER = 4000


def _without_data(event: BillEvent) -> Event:
    return Event(lab_id=event.lab_id, event_type=event.event_type, event_time=event.event_time)


# --- what is wrong with it --------------------------------------------------------------------

_AT_PATH = re.compile(r" - at `(?P<path>.*)`$")
_MISSING = re.compile(r"required field `(?P<field>[^`]*)`")


def _explain(message: str) -> Unreadable:
    """Turn msgspec's sentence into a reason, a path and words."""
    found = _AT_PATH.search(message)
    path = found["path"] if found else "$"
    words = message[: found.start()] if found else message
    if missing := _MISSING.search(words):
        field = missing["field"]
        return Unreadable("missing_field", f"{path}.{field}", f"the field {field} is missing")
    words = words.replace("`", "")
    if path == "$" and words.startswith("Expected object"):
        return Unreadable("not_an_object", "$", words)
    ranged = " of length" in words or ">=" in words or "<=" in words or "out of range" in words
    return Unreadable("out_of_range" if ranged else "wrong_type", path, words)


def _forbidden_character(event: Event) -> str | None:
    """Return the path of the first identifier that PostgreSQL's text cannot hold."""
    for path, text in _identifiers(event):
        if "\x00" in text or not is_whole(text):
            return path
    return None


def _identifiers(event: Event) -> Iterator[tuple[str, str]]:
    yield "$.labID", event.lab_id
    yield "$.eventType", event.event_type
    if isinstance(event, BillEvent):
        yield "$.data.billID", event.data.bill_id
        yield "$.data.integratorID", event.data.integrator_id or ""
        tests = (event.data.bill_data and event.data.bill_data.tests) or ()
        for index, test in enumerate(tests):
            yield f"$.data.billData.testData[{index}]._id", test.test_id


# --- what an unreadable body still says -------------------------------------------------------


def _identifier(value: Any, *path: str) -> str:  # noqa: ANN401 -- any JSON value
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    try:
        text = msgspec.convert(value, Identifier)
    except msgspec.ValidationError:
        return ""
    storable = type(text) is str and "\x00" not in text and is_whole(text)
    return text if storable else ""


def _event_time(value: Any) -> int | None:  # noqa: ANN401 -- any JSON value
    try:
        return msgspec.convert(value.get("eventTime"), EventTime)
    except (AttributeError, ValueError):
        return None
