"""Events whose bodies were erased, as an export carries them and an import restores them."""

from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from ledger.eventlog.append import Delivery, ErasedBody, Source
from ledger.model.event import MAX_LENGTH, EventColumns, EventTime
from ledger.model.json_text import is_storable_text
from ledger.model.operator_events import Hash, is_storable

_Column = Annotated[str, Meta(max_length=MAX_LENGTH)]


class ErasedEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """What the log still holds of an event; `event_time` in Unix seconds, hashes in hexadecimal."""

    at: Annotated[datetime, Meta(tz=True)]
    lab_id: _Column
    bill_id: _Column
    event_type: _Column
    event_time: EventTime | None
    digest: Hash
    body_sha256: Hash


class ErasedColumns(NamedTuple):
    """What is selected from `ledger.logged_event` for an `ErasedEvent`; null if there is a body."""

    erased_at: datetime
    lab_id: str
    bill_id: str
    event_type: str
    event_time: int | None
    digest: bytes
    body_sha256: bytes


COLUMNS = """
    erased_at,
    CASE WHEN erased_at IS NOT NULL THEN lab_id END,
    CASE WHEN erased_at IS NOT NULL THEN bill_id END,
    CASE WHEN erased_at IS NOT NULL THEN event_type END,
    CASE WHEN erased_at IS NOT NULL THEN extract(epoch FROM event_time)::int8 END,
    CASE WHEN erased_at IS NOT NULL THEN digest END,
    CASE WHEN erased_at IS NOT NULL THEN body_sha256 END
"""
TYPES = ("timestamptz", "text", "text", "text", "int8", "bytea", "bytea")
"""Of `COLUMNS`."""


def erased_event(columns: ErasedColumns) -> ErasedEvent:
    """Return what an export says of an event."""
    return ErasedEvent(
        at=columns.erased_at.astimezone(UTC),
        lab_id=columns.lab_id,
        bill_id=columns.bill_id,
        event_type=columns.event_type,
        event_time=columns.event_time,
        digest=columns.digest.hex(),
        body_sha256=columns.body_sha256.hex(),
    )


def is_restorable(erased: ErasedEvent, source: Source) -> bool:
    """Return whether the log can hold this; a decision has no body that can be erased."""
    names = (erased.lab_id, erased.bill_id, erased.event_type)
    return source != "operator" and is_storable(erased.at) and all(map(is_storable_text, names))


def restored(erased: ErasedEvent, received_at: datetime, source: Source) -> Delivery:
    """Return the delivery that an export's line restores."""
    columns = EventColumns(
        lab_id=erased.lab_id,
        bill_id=erased.bill_id,
        event_type=erased.event_type,
        event_time=erased.event_time,
        digest=bytes.fromhex(erased.digest),
        unreadable=None,
    )
    body = ErasedBody(erased.at, bytes.fromhex(erased.body_sha256))
    return Delivery(b"", received_at, source, columns, body)
