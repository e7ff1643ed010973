"""The log over HTTP: one bill's events, all events, and those that cannot be read."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Response, get
from litestar.params import Parameter
from psycopg.sql import SQL

from ledger.api.answers import answer, ok, page
from ledger.api.bills import unknown_bill
from ledger.api.guards import READ
from ledger.api.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    OptionalPosition,
    read_cursor,
    write_cursor,
)
from ledger.api.paths import identifier
from ledger.api.services import Services
from ledger.api.wire import (
    BillEventItem,
    EventItem,
    Page,
    UnreadableEventItem,
    attempt,
    shown_body,
)
from ledger.eventlog.read import SHOWN, LoggedDelivery
from ledger.model.event import Reason
from ledger.projection.rows import encode
from ledger.settings import Settings

_HEAD = "(SELECT position FROM event_log ORDER BY position DESC LIMIT 1)"

_OF_BILL = SQL(f"""
SELECT h.head, e.*
FROM (SELECT {_HEAD} AS head) h
LEFT JOIN LATERAL (
    SELECT {SHOWN}
    FROM event_log
    WHERE lab_id = %s AND bill_id = %s AND position > %s
    ORDER BY position
    LIMIT %s
) e ON true
ORDER BY e.position
""")  # noqa: S608 -- our own names

_ALL = SQL(f"""
SELECT h.head, e.*
FROM (SELECT {_HEAD} AS head) h
LEFT JOIN LATERAL (
    SELECT {SHOWN} FROM event_log WHERE position > %s ORDER BY position LIMIT %s
) e ON true
ORDER BY e.position
""")  # noqa: S608 -- our own names

_UNREADABLE = SQL("""
SELECT
    c.position, e.position, e.event_type, e.event_time, e.received_at, e.source, e.lab_id,
    e.bill_id, e.body, u.reason, u.path, u.detail
FROM state.checkpoint c
LEFT JOIN LATERAL (
    SELECT * FROM state.unreadable_event u
    WHERE u.position > %s AND {where}
    ORDER BY u.position
    LIMIT %s
) u ON true
LEFT JOIN event_log e
    ON e.lab_id = u.lab_id AND e.bill_id = u.bill_id AND e.position = u.position
ORDER BY e.position
""")


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
    found = _deliveries(rows)
    if not found and not after:
        raise unknown_bill(key, rows[0][0] or 0)
    shown = [_bill_item(row, services.settings) for row in found[:limit]]
    return answer(page(map(encode, shown), _following(found, limit)), rows[0][0] or 0)


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
    rows = await services.fetch(_ALL, [_start(after, cursor), limit + 1])
    found = _deliveries(rows)
    shown = [_item(row, services.settings) for row in found[:limit]]
    return answer(page(map(encode, shown), _following(found, limit)), rows[0][0] or 0)


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
    query = _UNREADABLE.format(where=SQL("true" if reason is None else "u.reason = %s"))
    values: list[Any] = [_start(after, cursor), *([] if reason is None else [reason]), limit + 1]
    rows = await services.fetch(query, values)
    found = [row for row in rows if row[1] is not None]
    shown = [
        UnreadableEventItem(
            **_members(LoggedDelivery(*row[1:9]), services.settings),
            lab_id=row[6],
            bill_id=row[7],
            reason=row[9],
            path=row[10],
            detail=row[11],
        )
        for row in found[:limit]
    ]
    following = write_cursor(found[limit - 1][1]) if len(found) > limit else None
    return answer(page(map(encode, shown), following), rows[0][0])


def _start(after: int | None, cursor: str | None) -> int:
    key = read_cursor(cursor, int)
    return int(key[0]) if key else after or 0


def _deliveries(rows: Sequence[tuple[Any, ...]]) -> list[LoggedDelivery]:
    return [LoggedDelivery(*row[1:]) for row in rows if row[1] is not None]


def _following(found: list[LoggedDelivery], limit: int) -> str | None:
    return write_cursor(found[limit - 1].position) if len(found) > limit else None


def _members(row: LoggedDelivery, settings: Settings) -> dict[str, Any]:
    body, raw = shown_body(row.body)
    return {
        "position": row.position,
        "event_type": row.event_type,
        "event_time": row.event_time,
        "received_at": row.received_at,
        "source": row.source,
        "attempt": attempt(row, settings.retry_interval, settings.retry_count),
        "body": body,
        "raw": raw,
    }


def _bill_item(row: LoggedDelivery, settings: Settings) -> BillEventItem:
    return BillEventItem(**_members(row, settings))


def _item(row: LoggedDelivery, settings: Settings) -> EventItem:
    return EventItem(**_members(row, settings), lab_id=row.lab_id, bill_id=row.bill_id)
