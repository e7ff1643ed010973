"""The feed of bills that changed: in parts, or as a stream that stays open."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, Response, get
from litestar.response import Stream

from ledger.api.handlers.bills import bill_items
from ledger.api.http.guards import READ
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    LAST_POSITION,
    CursorText,
    Limit,
    OptionalPosition,
    read_cursor,
    write_cursor,
)
from ledger.api.http.problem_handlers import ProblemError
from ledger.api.http.responses import answer, ok, page
from ledger.api.schemas import BillItem, Page
from ledger.api.services import Services

KEEP_ALIVE_SECONDS = 15.0
"""A comment is sent this often, so that proxies keep the stream and a dead one is noticed."""

STREAM = "text/event-stream"
_PART = 500


@get(
    "/v1/changes",
    opt=READ,
    operation_id="ListChanges",
    responses={
        200: ok(
            Page[BillItem],
            description="In order of position; with `Accept: text/event-stream` a stream of events "
            "`bill`, each with the position as its id.",
        )
    },
)
async def list_changes(
    request: Request[Any, Any, Any],
    services: Services,
    after: OptionalPosition = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes] | Stream:
    """List bills that changed after a position, each once, in the order of their last change.

    As a stream it goes on from `Last-Event-ID`, else from `after`.
    """
    if STREAM in request.headers.get("accept", ""):
        resumed = _last_event_id(request)
        start = (after or 0) if resumed is None else resumed
        return Stream(
            _stream(services, start),
            media_type=STREAM,
            headers={
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
                "Ledger-Position": str(services.watch.position),
            },
        )
    key = read_cursor(cursor, int)
    start = key[0] if key else after or 0
    position, found = await bill_items(
        services, [("b.position > ", start)], limit=limit + 1, newest_first=False
    )
    following = write_cursor(found[limit - 1][0]) if len(found) > limit else None
    return answer(page((item for _, item in found[:limit]), following), position)


async def _stream(services: Services, start: int) -> AsyncIterator[bytes]:
    """Yield an event for each changed bill, for ever; a bill that changed twice may come once."""
    last = start
    yield b": changes after %d\n\n" % start
    while not services.watch.closed:
        seen = services.watch.position
        _, found = await bill_items(
            services, [("b.position > ", last)], limit=_PART, newest_first=False
        )
        for position, item in found:
            yield b"id: %d\nevent: bill\ndata: %s\n\n" % (position, item)
            last = position
        if len(found) < _PART:
            await services.watch.moved(seen, KEEP_ALIVE_SECONDS)
            if services.watch.position == seen:
                yield b": still here\n\n"


def _last_event_id(request: Request[Any, Any, Any]) -> int | None:
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > LAST_POSITION:
        raise ProblemError(400, f"header Last-Event-ID: {text!r} is none of the stream's ids")
    return int(text)
