"""The log over HTTP: one bill's events, all events, and those that cannot be read."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, LiteralString

from litestar import Response, get
from litestar.params import Parameter
from msgspec import Struct
from psycopg.sql import SQL, Composed, Literal

from ledger.api.handlers.bills import unknown_bill
from ledger.api.http.guards import READ
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    OptionalPosition,
    read_cursor,
    write_cursor,
)
from ledger.api.http.paths import identifier
from ledger.api.http.responses import answer, ok, page
from ledger.api.schemas import (
    BillEventItem,
    EventItem,
    Page,
    UnreadableEventItem,
    attempt,
    shown_body,
)
from ledger.api.services import Services
from ledger.eventlog.read import SHOWN, LoggedDelivery
from ledger.model.unreadable import Reason
from ledger.operations.policy import Policy
from ledger.projection.rows import encode

Row = tuple[Any, ...]

PART_BYTES = 4 * 1024 * 1024
"""Of bodies in one part of a list; the last one may go beyond. Bodies can be large, and a process
has many lists to serve."""

BESIDE_THE_LOOP = 64 * 1024
"""Bytes of bodies from which on a part is written in a thread."""

# Sizes are known without the bodies' being read from the disk.
_PART = """
SELECT h.position, e.*
FROM ({position}) h (position)
LEFT JOIN LATERAL (
    SELECT *
    FROM (
        SELECT
            l.*,
            sum(octet_length(l.body)) OVER (ORDER BY l.position) - octet_length(l.body) AS before
        FROM ({rows}) l
    ) sized
    WHERE before < {part_bytes}
) e ON true
ORDER BY e.position
"""
_HEAD = "SELECT coalesce((SELECT position FROM ledger.event_log ORDER BY position DESC LIMIT 1), 0)"


def _part(position: LiteralString, rows: LiteralString) -> Composed:
    return SQL(_PART).format(position=SQL(position), rows=SQL(rows), part_bytes=Literal(PART_BYTES))


_OF_BILL = _part(
    _HEAD,
    # + 0 keeps it off the index on position, along which other bills' events lie between.
    f"SELECT {SHOWN} FROM ledger.event_log WHERE lab_id = %s AND bill_id = %s AND position + 0 > %s"  # noqa: S608 -- our own names
    " ORDER BY position + 0 LIMIT %s",
)
ALL = _part(
    _HEAD,
    f"SELECT {SHOWN} FROM ledger.event_log WHERE position > %s ORDER BY position LIMIT %s",  # noqa: S608 -- our own names
)
_UNREADABLE = """
    SELECT
        e.position, event_type_name(e.type_code) AS event_type,
        event_time(e.event_second) AS event_time, e.received_at,
        source_name(e.source_letter) AS source, e.lab_id, e.bill_id, e.body,
        u.reason, u.path, u.detail
    FROM (
        SELECT *
        FROM state.unreadable_event
        WHERE position > %s AND (%s::text IS NULL OR reason = %s)
        ORDER BY position
        LIMIT %s
    ) u
    JOIN ledger.event_log e ON e.lab_id = u.lab_id AND e.position = u.position
"""
ALL_UNREADABLE = _part("SELECT position FROM state.checkpoint", _UNREADABLE)


@get(
    "/v1/labs/{lab_id:str}/bills/{bill_id:str}/events",
    opt=READ,
    operation_id="ListBillEvents",
    responses={200: ok(Page[BillEventItem], description="In order of position.")},
)
async def list_bill_events(
    services: Services,
    lab_id: str,
    bill_id: str,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List what the log holds of a bill, unreadable events included."""
    key = (identifier(lab_id), identifier(bill_id))
    after = read_cursor(cursor, int)
    rows = await services.fetch(_OF_BILL, [*key, after[0] if after else 0, limit + 1])
    if rows[0][1] is None and not after:
        raise unknown_bill(key, rows[0][0])
    return await _answer(rows, limit, services.policy, _bill_item)


@get(
    "/v1/events",
    opt=READ,
    operation_id="ListEvents",
    responses={200: ok(Page[EventItem], description="In order of position.")},
)
async def list_events(
    services: Services,
    after: OptionalPosition = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List the log."""
    rows = await services.fetch(ALL, [_start(after, cursor), limit + 1])
    return await _answer(rows, limit, services.policy, event_item)


@get(
    "/v1/events/unreadable",
    opt=READ,
    operation_id="ListUnreadableEvents",
    responses={200: ok(Page[UnreadableEventItem], description="In order of position.")},
)
async def list_unreadable_events(
    services: Services,
    reason: Annotated[
        Reason | None, Parameter(description="Only those with this reason.", required=False)
    ] = None,
    after: OptionalPosition = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List the events that were kept and cannot be read, each with the reason and the JSON path."""
    values = [_start(after, cursor), reason, reason, limit + 1]
    rows = await services.fetch(ALL_UNREADABLE, values)
    return await _answer(rows, limit, services.policy, unreadable_item)


def _start(after: int | None, cursor: str | None) -> int:
    key = read_cursor(cursor, int)
    return int(key[0]) if key else after or 0


async def _answer(
    rows: list[Row], limit: int, policy: Policy, item: Callable[[Row, Policy], Struct]
) -> Response[bytes]:
    """Write a part of a list from rows of `_PART`: the position, `SHOWN`, more, the size before."""
    found = [row for row in rows if row[1] is not None]
    size = sum(len(row[8]) for row in found)
    following = None
    if len(found) > limit:
        following = write_cursor(found[limit - 1][1])
    elif size >= PART_BYTES:
        following = write_cursor(found[-1][1])

    def write() -> bytes:
        return page([encode(item(row, policy)) for row in found[:limit]], following)

    content = write() if size < BESIDE_THE_LOOP else await asyncio.to_thread(write)
    return answer(content, rows[0][0])


def _members(row: Row, policy: Policy) -> dict[str, Any]:
    shown = LoggedDelivery(*row[1:9])
    body, raw = shown_body(shown.body)
    return {
        "position": shown.position,
        "event_type": shown.event_type,
        "event_time": shown.event_time,
        "received_at": shown.received_at,
        "source": shown.source,
        "attempt": attempt(shown, policy),
        "body": body,
        "raw": raw,
    }


def _bill_item(row: Row, policy: Policy) -> BillEventItem:
    return BillEventItem(**_members(row, policy))


def event_item(row: Row, policy: Policy) -> EventItem:
    """Return the item of a row of `ALL`."""
    return EventItem(**_members(row, policy), lab_id=row[6], bill_id=row[7])


def unreadable_item(row: Row, policy: Policy) -> UnreadableEventItem:
    """Return the item of a row of `ALL_UNREADABLE`."""
    return UnreadableEventItem(
        **_members(row, policy),
        lab_id=row[6],
        bill_id=row[7],
        reason=row[9],
        path=row[10],
        detail=row[11],
    )
