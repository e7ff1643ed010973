"""Finds the events in the values of a file, as support and others send them.

A value is a payload of Flabs, a line of an export, a record of liveness, or a wrapper of payloads.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from ledger.eventlog.append import Delivery
from ledger.eventlog.erased_events import ErasedEvent
from ledger.eventlog.export_lines import body_of, read_export_line, restored_delivery
from ledger.eventlog.liveness_transfer import LivenessRecord, read_record
from ledger.model.event import read_event
from ledger.model.operators import Operator
from ledger.model.unreadable import Unreadable

_SPACE = b" \t\r\n"
_LAB_FIELD = b'"labID"'


class Options(Struct, frozen=True, kw_only=True):
    """How to import a file.

    `exports`: lines of an export are restored with the time and the source that they name, as
    befits a file of our own; else their bodies are imported as payloads. `keep_unreadable`: values
    that are no webhook are recorded as well. A file with events of labs that `by` may not decide
    for is refused as a whole.
    """

    by: Operator
    exports: bool = False
    keep_unreadable: bool = False


def events_of(text: bytes, options: Options) -> Iterator[Delivery | LivenessRecord | bytes]:
    """Yield the events of a value as deliveries, what is to be left out of the log as bytes.

    Records of liveness are restored from an export of our own, and otherwise skipped.
    """
    if record := read_record(text):
        if options.exports:
            yield record
        return
    line = read_export_line(text)
    if line and options.exports:
        yield restored_delivery(line)
        return
    if line and isinstance(line.erased, ErasedEvent):
        return  # nothing is left of it to be imported as a payload
    text = body_of(line) if line else text
    if _is_webhook(text):
        yield _payload(text)
    elif inner := _payloads_inside(text):
        for body in inner:
            is_kept = options.keep_unreadable or _is_webhook(body)
            yield _payload(body) if is_kept else body
    else:
        yield _payload(text) if options.keep_unreadable else text


def holds_event(text: bytes) -> bool:
    """Return whether a value is a webhook or a line of an export, or holds one."""
    return (
        _is_webhook(text)
        or read_export_line(text) is not None
        or read_record(text) is not None
        or bool(_payloads_inside(text))
    )


def _is_webhook(text: bytes) -> bool:
    # Most values that are none are found out here; to read one as an event takes far longer.
    if not text.lstrip(_SPACE).startswith(b"{") or (_LAB_FIELD not in text and b"\\" not in text):
        return False
    return not isinstance(read_event(text), Unreadable)


def _payloads_inside(text: bytes) -> list[bytes]:
    """Return what a wrapper of payloads holds; nothing if a value is no such wrapper.

    Payloads come as JSON in a string, and as the only array of an object.
    """
    try:
        if text.startswith(b'"'):
            inside = [msgspec.json.decode(text, type=str).encode()]
        elif text.startswith(b"{"):
            members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            arrays = [raw for raw in map(bytes, members.values()) if raw.startswith(b"[")]
            if len(arrays) != 1 or not _PAYLOAD_FIELDS.isdisjoint(members):
                return []
            elements = msgspec.json.decode(arrays[0], type=list[msgspec.Raw])
            if len(elements) > _MOST_INSIDE:
                return []
            inside = [found for raw in elements for found in _from_string(bytes(raw))]
        else:
            return []
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return []
    return inside if any(map(_is_webhook, inside[:_TRIED])) else []


def _from_string(text: bytes) -> list[bytes]:
    return (text.startswith(b'"') and _payloads_inside(text)) or [text]


_MOST_INSIDE = 50_000  # elements; a hostile object of one value's size holds millions
_TRIED = 100
_PAYLOAD_FIELDS = frozenset({"labID", "eventType", "eventTime"})


def _payload(body: bytes) -> Delivery:
    return Delivery.of(body, received_at=datetime.now(UTC), source="import")
