"""The feed of changed bills over HTTP: page by page, or as a stream that stays open."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.params import Parameter
from litestar.response import Stream
from psycopg.sql import SQL

from ledger.api.change_feed import Change, ChangeFeed
from ledger.api.handlers.bills import bill_items
from ledger.api.http.guards import READ, presented_key
from ledger.api.http.pages import first_page
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    LAST_POSITION,
    CursorText,
    Limit,
    OptionalPosition,
    read_cursor,
)
from ledger.api.http.problems import ProblemError, shortened
from ledger.api.http.responses import POSITION_HEADER, answer, encode, ok, with_members
from ledger.api.permissions import Caller
from ledger.api.schemas import ChangeItem, Page
from ledger.api.services import Services
from ledger.model.operators import Labs
from ledger.operations.bill_lists import Condition, of_labs

STREAM = "text/event-stream"
_DIGITS = len(str(LAST_POSITION))

_LOGGED = SQL("SELECT position, lab_id, received_at FROM ledger.event_log WHERE position = ANY(%s)")


@get(
    "/v1/changes",
    opt=READ,
    operation_id="ListChanges",
    responses={200: ok(Page[ChangeItem], description="In order of position.")},
)
async def list_changes(
    request: Request[Any, Any, Any],
    services: Services,
    caller: Caller,
    lab_id: str | None = None,
    after: OptionalPosition = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
    last_event_id: Annotated[
        str | None,
        Parameter(
            header="Last-Event-ID",
            required=False,
            description="The id of the last event that a stream delivered; wins over `after`.",
        ),
    ] = None,
) -> Response[bytes] | Stream:
    """List bills that changed after a position, each once, in the order of their last change.

    With `Accept: text/event-stream` the response is a stream of events named `bill`, whose ids are
    positions. It stays open and resumes after `Last-Event-ID`. A position that the log has not
    reached yet finds nothing, and a stream says so in a comment; compare it with `Ledger-Position`
    after the log was restored from a backup.
    """
    if STREAM in request.headers.get("accept", ""):
        resumed = _position(last_event_id)
        start = (after or 0) if resumed is None else resumed
        return _stream(request, services, start, caller.narrowed(lab_id))
    key = read_cursor(cursor, int)
    position, found = await read_changes(
        services, key[0] if key else after or 0, caller.narrowed(lab_id), limit + 1
    )
    content = first_page(found, limit, lambda one: one.item, lambda one: (one.position,))
    return answer(content, position)


async def read_changes(
    services: Services, after: int, labs: Labs, limit: int
) -> tuple[int, list[Change]]:
    """Return changes after a position, and the log position that the result reflects."""
    conditions: list[Condition] = [("b.position > {}", after), *of_labs(labs)]
    position, found = await bill_items(services, conditions, limit=limit, newest_first=False)
    return position, await _with_times(services, found)


async def _with_times(services: Services, found: Sequence[tuple[int, bytes]]) -> list[Change]:
    """Add to each bill when its last event was received, as the log says."""
    if not found:
        return []
    rows = await services.fetch(_LOGGED, ([position for position, _ in found],))
    logged = {position: (lab_id, received_at) for position, lab_id, received_at in rows}
    changes = []
    for position, item in found:
        lab_id, received_at = logged[position]
        changes.append(Change(position, lab_id, with_members(item, changed_at=encode(received_at))))
    return changes


def _stream(request: Request[Any, Any, Any], services: Services, start: int, labs: Labs) -> Stream:
    changes: ChangeFeed = request.app.state["changes"]
    key = presented_key(request)
    if changes.is_full:
        raise ProblemError(
            503,
            "no further stream of changes is served: try again, or read it page by page",
            {"Retry-After": "30"},
        )
    return Stream(
        changes.stream(start, labs, lambda: services.authenticator.still_admits(key)),
        media_type=STREAM,
        headers={
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
            POSITION_HEADER: str(services.watch.position),
        },
    )


def _position(last_event_id: str | None) -> int | None:
    text = (last_event_id or "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS or int(text) > LAST_POSITION:
        raise ProblemError(
            400, f"header Last-Event-ID: {shortened(text)} is not an id of this stream"
        )
    return int(text)
