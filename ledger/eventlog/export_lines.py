"""Exports the log to JSON Lines, and reads such lines again.

A line holds what the log holds, so that importing it gives an equal log:
`{"position", "received_at", "source", "body"}`, or `raw` (base64) instead of `body` where the bytes
would not survive as JSON in a line, or `erased` where the body was erased. Records of liveness
follow, see `liveness_transfer`.
"""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from psycopg import Connection
from psycopg.sql import SQL, Composable, Literal

from ledger.errors import UnknownSubjectError
from ledger.eventlog import erased_events
from ledger.eventlog.append import Delivery, Source
from ledger.eventlog.erased_events import ErasedColumns, ErasedEvent, erased_event, is_restorable
from ledger.model.digest import is_json
from ledger.model.operator_events import is_storable


class ExportLine(Struct, frozen=True, forbid_unknown_fields=True):
    """One event of an export."""

    position: int
    received_at: Annotated[datetime, Meta(tz=True)]
    source: Source
    body: msgspec.Raw | UnsetType = UNSET
    raw: str | UnsetType = UNSET
    erased: ErasedEvent | UnsetType = UNSET


_LINE = msgspec.json.Decoder(ExportLine)
_EXPORT_MARK = b'"position"'

_POSITIONS_OF_IMPORT = """
SELECT lower(r.positions), upper(r.positions) - 1
FROM ledger.import_run i
CROSS JOIN LATERAL unnest(i.positions) AS r (positions)
WHERE i.import_id = %s
ORDER BY 1
"""


def export_lines(
    connection: Connection,
    *,
    after: int = 0,
    upto: int | None = None,
    lab_id: str | None = None,
    bill_id: str | None = None,
    import_id: int | None = None,
) -> Iterator[bytes]:
    """Yield the log, or a part of it, as lines in order of position.

    Raises `UnknownSubjectError` for an import that does not exist.
    """
    if import_id is not None:
        for first, last in _positions_of_import(connection, import_id):
            begin, end = max(after, first - 1), last if upto is None else min(upto, last)
            yield from export_lines(
                connection, after=begin, upto=end, lab_id=lab_id, bill_id=bill_id
            )
        return
    conditions: list[Composable] = [SQL("position > {}").format(Literal(after))]
    for condition, value in (
        (SQL("position <= {}"), upto),
        (SQL("lab_id = {}"), lab_id),
        (SQL("bill_id = {}"), bill_id),
    ):
        if value is not None:
            conditions.append(condition.format(Literal(value)))
    query = SQL(
        "COPY (SELECT position, received_at, source, body, {} FROM ledger.logged_event"
        " WHERE {} ORDER BY position) TO STDOUT (FORMAT binary)"
    ).format(SQL(erased_events.COLUMNS), SQL(" AND ").join(conditions))
    with connection.cursor().copy(query) as copy:
        copy.set_types(("int8", "timestamptz", "text", "bytea", *erased_events.TYPES))
        for position, received_at, source, body, *erased in copy.rows():
            moment = received_at.astimezone(UTC)
            what = body if body is not None else erased_event(ErasedColumns(*erased))
            yield export_line(position, moment, source, what)


def export_line(
    position: int, received_at: datetime, source: Source, body: bytes | ErasedEvent
) -> bytes:
    """Return the line of an event, with its line end; `received_at` in UTC."""
    if isinstance(body, ErasedEvent):
        return msgspec.json.encode(ExportLine(position, received_at, source, erased=body)) + b"\n"
    fits_a_line = body == body.strip() and b"\n" not in body and b"\r" not in body
    if fits_a_line and is_json(body):
        line = msgspec.json.encode(
            ExportLine(position, received_at, source, body=msgspec.Raw(body))
        )
        try:
            _LINE.decode(line)
        except msgspec.MsgspecError:
            pass  # JSON that msgspec does not read, such as half a surrogate pair
        else:
            return line + b"\n"
    raw = base64.b64encode(body).decode()
    return msgspec.json.encode(ExportLine(position, received_at, source, raw=raw)) + b"\n"


def _positions_of_import(connection: Connection, import_id: int) -> list[tuple[int, int]]:
    rows = connection.execute(_POSITIONS_OF_IMPORT, (import_id,)).fetchall()
    if not rows:
        raise UnknownSubjectError(f"there is no import {import_id}")
    return rows


def read_export_line(text: bytes) -> ExportLine | None:
    """Return the line of an export that a value is; None if it is none that can be restored."""
    if _EXPORT_MARK not in text:
        return None
    try:
        line = _LINE.decode(text)
        body_of(line)
    except (msgspec.MsgspecError, ValueError):
        return None
    if isinstance(line.erased, ErasedEvent) and not is_restorable(line.erased, line.source):
        return None
    return line if is_storable(line.received_at) else None


def body_of(line: ExportLine) -> bytes:
    """Return the body of a line of an export. Raises `ValueError` if it is not base64."""
    if not isinstance(line.raw, UnsetType):
        return base64.b64decode(line.raw, validate=True)
    return b"" if isinstance(line.body, UnsetType) else bytes(line.body)


def restored_delivery(line: ExportLine) -> Delivery:
    """Return the event of a line with the time and the source that it names."""
    if isinstance(line.erased, ErasedEvent):
        return erased_events.restored(line.erased, line.received_at, line.source)
    return Delivery.of(body_of(line), received_at=line.received_at, source=line.source)
