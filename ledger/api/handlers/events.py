"""The event log over HTTP: the events of one bill, all events, and the unreadable ones."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, LiteralString

from litestar import Response, get
from litestar.params import Parameter
from msgspec import UNSET, Struct, UnsetType
from psycopg.sql import SQL, Composed, Literal

from ledger.api.handlers.unknown_bills import no_events
from ledger.api.http.guards import READ
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    OptionalPosition,
    WithBodies,
    read_cursor,
    write_cursor,
)
from ledger.api.http.paths import identifier
from ledger.api.http.responses import answer, encode, ok, page
from ledger.api.permissions import BodyRule, Caller
from ledger.api.schemas import (
    NULL,
    BillEventItem,
    EventItem,
    NoBody,
    Page,
    UnreadableEventItem,
    attempt,
    shown_body,
)
from ledger.api.services import Services
from ledger.eventlog.read import SHOWN, LoggedDelivery
from ledger.model.operators import as_array
from ledger.model.unreadable import Reason
from ledger.operations.policy import Policy

Row = tuple[Any, ...]

PAGE_BYTES = 4 * 1024 * 1024
"""The most bytes of bodies in one page; the last body may exceed it."""

_MORE = 1 + len(LoggedDelivery._fields)
"""Where the columns after `SHOWN` begin in a row of `_PAGE`."""

IN_THREAD = 64 * 1024
"""Pages with at least so many bytes of bodies are written in a thread."""

# PostgreSQL knows the size of a body without reading it from the disk.
_PAGE = """
SELECT h.position, e.*
FROM ({position}) h (position)
LEFT JOIN LATERAL (
    SELECT *
    FROM (
        SELECT
            l.*,
            coalesce(sum(octet_length(l.body)) OVER (ORDER BY l.position), 0)
                - coalesce(octet_length(l.body), 0) AS before
        FROM ({rows}) l
    ) sized
    WHERE before < {page_bytes}
) e ON true
ORDER BY e.position
"""
_HEAD = "SELECT ledger.last_position()"


def _page(position: LiteralString, rows: LiteralString) -> Composed:
    return SQL(_PAGE).format(position=SQL(position), rows=SQL(rows), page_bytes=Literal(PAGE_BYTES))


_OF_BILL = _page(
    _HEAD,
    # + 0 keeps the planner off the index on position, where other bills' events lie in between.
    f"SELECT {SHOWN} FROM ledger.logged_event WHERE lab_id = %s AND bill_id = %s"  # noqa: S608 -- our own names
    " AND position + 0 > %s ORDER BY position + 0 LIMIT %s",
)
ALL = _page(
    _HEAD,
    f"SELECT {SHOWN} FROM ledger.logged_event WHERE position > %s ORDER BY position LIMIT %s",  # noqa: S608 -- our own names
)
# From lab to lab along the index, so that the cost does not depend on the events of other labs.
OF_LABS = _page(
    _HEAD,
    f"""
    SELECT e.*
    FROM unnest(%s::text[]) AS k (lab_id)
    CROSS JOIN LATERAL (
        SELECT {SHOWN} FROM ledger.logged_event l
        WHERE l.lab_id = k.lab_id AND l.position > %s
        ORDER BY l.lab_id, l.position LIMIT %s
    ) e
    ORDER BY e.position LIMIT %s
    """,  # noqa: S608 -- our own names
)
OF_LABS_ON_CLUSTER = _page(
    _HEAD,
    f"""
    SELECT {SHOWN} FROM ledger.logged_event
    WHERE lab_id = ANY(%s::text[]) AND position > %s AND %s > 0
    ORDER BY position LIMIT %s
    """,  # noqa: S608 -- our own names
)
"""The same where the log is distributed, and no lateral join can be sent to the nodes."""

_UNREADABLE = """
    SELECT
        e.position, e.event_type,
        e.event_time, e.received_at,
        e.source, e.lab_id, e.bill_id, e.body, e.is_erasable, e.erased_at,
        u.reason, u.path, u.detail
    FROM (
        SELECT *
        FROM state.unreadable_event
        WHERE
            position > %s
            AND (%s::text IS NULL OR reason = %s)
            AND (%s::text[] IS NULL OR lab_id = ANY(%s::text[]))
        ORDER BY position
        LIMIT %s
    ) u
    JOIN ledger.logged_event e ON e.lab_id = u.lab_id AND e.position = u.position
"""
ALL_UNREADABLE = _page("SELECT position FROM state.checkpoint", _UNREADABLE)


def of_labs_query(services: Services) -> Composed:
    """Return the query for a page of the events of some labs."""
    return OF_LABS_ON_CLUSTER if services.watch.is_distributed else OF_LABS


@get(
    "/v1/labs/{lab_id:str}/bills/{bill_id:str}/events",
    opt=READ,
    operation_id="ListBillEvents",
    responses={200: ok(Page[BillEventItem], description="In order of position.")},
)
async def list_bill_events(
    services: Services,
    caller: Caller,
    lab_id: str,
    bill_id: str,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
    *,
    with_bodies: WithBodies = False,
) -> Response[bytes]:
    """List the events of a bill, unreadable ones included."""
    shows = caller.body_rule(asked=with_bodies)
    key = (identifier(lab_id), identifier(bill_id))
    after = read_cursor(cursor, int)
    rows = await services.fetch(
        _OF_BILL, [*caller.bill_key(*key), after[0] if after else 0, limit + 1]
    )
    if rows[0][1] is None and not after:
        raise no_events(key, rows[0][0])
    return await _answer(rows, limit, services, partial(_bill_item, shows=shows))


@get(
    "/v1/events",
    opt=READ,
    operation_id="ListEvents",
    responses={200: ok(Page[EventItem], description="In order of position.")},
)
async def list_events(
    services: Services,
    caller: Caller,
    after: OptionalPosition = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
    *,
    with_bodies: WithBodies = False,
) -> Response[bytes]:
    """List the events of the log."""
    shows = caller.body_rule(asked=with_bodies)
    start, most = _start(after, cursor), limit + 1
    if caller.labs is None:
        rows = await services.fetch(ALL, [start, most])
    else:
        rows = await services.fetch(of_labs_query(services), [list(caller.labs), start, most, most])
    return await _answer(rows, limit, services, partial(event_item, shows=shows))


@get(
    "/v1/events/unreadable",
    opt=READ,
    operation_id="ListUnreadableEvents",
    responses={200: ok(Page[UnreadableEventItem], description="In order of position.")},
)
async def list_unreadable_events(
    services: Services,
    caller: Caller,
    reason: Annotated[
        Reason | None,
        Parameter(description="Only unreadable events with this reason.", required=False),
    ] = None,
    after: OptionalPosition = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
    *,
    with_bodies: WithBodies = False,
) -> Response[bytes]:
    """List the events that cannot be read, each with the reason and the JSON path."""
    shows = caller.body_rule(asked=with_bodies)
    labs = as_array(caller.labs)
    values = [_start(after, cursor), reason, reason, labs, labs, limit + 1]
    rows = await services.fetch_state(ALL_UNREADABLE, values)
    return await _answer(rows, limit, services, partial(unreadable_item, shows=shows))


def _start(after: int | None, cursor: str | None) -> int:
    key = read_cursor(cursor, int)
    return int(key[0]) if key else after or 0


async def _answer(
    rows: list[Row], limit: int, services: Services, item: Callable[[Row, Policy], Struct]
) -> Response[bytes]:
    """Write a page from rows of `_PAGE`: the position, `SHOWN`, more columns, the size before."""
    found = [row for row in rows if row[1] is not None]
    size = sum(len(row[8] or b"") for row in found)
    following = None
    if len(found) > limit:
        following = write_cursor(found[limit - 1][1])
    elif size >= PAGE_BYTES:
        following = write_cursor(found[-1][1])

    def write() -> bytes:
        return page([encode(item(row, services.policy)) for row in found[:limit]], following)

    content = write() if size < IN_THREAD else await services.pages.run(write)
    return answer(content, rows[0][0])


def _members(row: Row, policy: Policy, shows: BodyRule) -> dict[str, Any]:
    shown = LoggedDelivery(*row[1:_MORE])
    no_body: NoBody | UnsetType = UNSET
    body, raw = NULL, None
    if shown.body is None:
        no_body = "erased"
    elif shown.is_erasable and not shows(shown.event_type):
        no_body = "withheld"
    else:
        body, raw = shown_body(shown.body)
    return {
        "position": shown.position,
        "event_type": shown.event_type,
        "event_time": shown.event_time,
        "received_at": shown.received_at,
        "source": shown.source,
        "attempt": attempt(shown, policy.retry_interval, policy.retry_count),
        "body": body,
        "raw": raw,
        "no_body": no_body,
        "erased_at": shown.erased_at or UNSET,
    }


def _bill_item(row: Row, policy: Policy, shows: BodyRule) -> BillEventItem:
    return BillEventItem(**_members(row, policy, shows))


def event_item(row: Row, policy: Policy, shows: BodyRule) -> EventItem:
    """Return the item of a row of `ALL`."""
    return EventItem(**_members(row, policy, shows), lab_id=row[6], bill_id=row[7])


def unreadable_item(row: Row, policy: Policy, shows: BodyRule) -> UnreadableEventItem:
    """Return the item of a row of `ALL_UNREADABLE`."""
    return UnreadableEventItem(
        **_members(row, policy, shows),
        lab_id=row[6],
        bill_id=row[7],
        reason=row[_MORE],
        path=row[_MORE + 1],
        detail=row[_MORE + 2],
    )
