"""The log: events from any position, and one event with its body as it came."""

from typing import Any

from litestar import Controller, Request, Response, get
from msgspec import Struct
from psycopg.sql import SQL

from ledger.api.handlers.events import ALL, ALL_UNREADABLE
from ledger.api.http.guards import READ
from ledger.api.http.parameters import LAST_POSITION
from ledger.api.permissions import Caller
from ledger.api.schemas import NoBody, attempt, attempt_of
from ledger.api.services import Services
from ledger.errors import ForbiddenError, UnknownSubjectError
from ledger.eventlog.append import Source
from ledger.eventlog.read import LoggedDelivery
from ledger.model.operators import as_array
from ledger.model.unreadable import Reason
from ledger.operations.log_search import (
    LOOKED_AT,
    FoundEvent,
    FoundEvents,
    LogSearch,
    found,
    search_query,
)
from ledger.operations.policy import Policy
from ledger.page.body_text import SHOWN_BYTES, body_text, marked_text
from ledger.page.headers import SECURITY
from ledger.page.parameters import Yes, choice_of, number_of, text_of
from ledger.page.render import respond

PART = 50

AnyRequest = Request[Any, Any, Any]

_WHY_AT = 1 + len(LoggedDelivery._fields)
"""Where more columns follow those of the event, in a row that begins with the log's position."""

_WHY = SQL("""
SELECT u.reason, u.path, u.detail
FROM state.unreadable_event u
WHERE u.lab_id = %s AND u.bill_id = %s AND u.position = %s
""")


class LogController(Controller):
    """The log."""

    path = "/"
    include_in_schema = False

    @get("/log", opt=READ)
    async def list_events(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List events in order of position: the newest, those from a position, or up to one."""
        filters = {name: text_of(request, name) for name in ("type", "lab", "source")}
        start, end = number_of(request, "from"), number_of(request, "to")
        wanted = LogSearch(
            start=start if start is not None else LAST_POSITION if end is None else end,
            backwards=start is None,
            limit=PART + 1,
            labs=caller.narrowed(filters["lab"]),
            event_type=filters["type"],
            source=choice_of(request, "source", Source),
        )
        query, values = search_query(wanted, on_cluster=services.watch.is_distributed)
        done = found(wanted, await services.fetch(query, values))
        events = sorted(done.events[:PART], key=lambda one: one.position)
        return respond(
            request, "log.html", position=done.head, filters=filters,
            events=[(one, _attempt(one, services.policy)) for one in events],
            start=start, end=end, is_newest=start is None and end is None,
            parts=_parts(wanted, done), looked_at=LOOKED_AT,
        )  # fmt: skip

    @get("/log/unreadable", opt=READ)
    async def list_unreadable(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List the events that cannot be read, with the reason and the place in the body."""
        reason = choice_of(request, "reason", Reason)
        start = number_of(request, "from") or 1
        labs = as_array(caller.labs)
        values = [max(start - 1, 0), reason, reason, labs, labs, PART + 1]
        rows = await services.fetch_state(ALL_UNREADABLE, values)
        events = [
            (delivery_of(row), row[_WHY_AT : _WHY_AT + 3]) for row in rows if row[1] is not None
        ]
        following = events[PART][0].position if len(events) > PART else None
        return respond(
            request, "unreadable.html", position=rows[0][0], events=events[:PART],
            following=following, reason=reason,
        )  # fmt: skip

    @get("/log/{position:int}", opt=READ)
    async def show_event(
        self, request: AnyRequest, services: Services, caller: Caller, position: int
    ) -> Response[str]:
        """Show one event with its body."""
        head, event = await _read(services, caller, position)
        why = await services.fetch(_WHY, (event.lab_id, event.bill_id, position))
        body, no_body = _shown(event, caller, asked=choice_of(request, "body", Yes) is not None)
        text, is_text = body_text(body)
        marked = marked_text(body, why[0][1]) if why and not no_body else None
        policy = services.policy
        return respond(
            request, "event.html", position=head, event=event, why=why[0] if why else None,
            nth=attempt(event, policy.retry_interval, policy.retry_count), text=text,
            is_text=is_text, marked=marked, cut=len(body) > SHOWN_BYTES, no_body=no_body,
        )  # fmt: skip

    @get("/log/{position:int}/body", opt=READ)
    async def download_body(
        self, request: AnyRequest, services: Services, caller: Caller, position: int
    ) -> Response[bytes]:
        """Download a body, byte for byte as it came."""
        _, event = await _read(services, caller, position)
        asked = choice_of(request, "body", Yes) is not None
        body, no_body = _shown(event, caller, asked=asked)
        if no_body:
            raise ForbiddenError(f"the body of the event at position {position:,} is {no_body}")
        headers = {
            **SECURITY,
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="event-{position}.json"',
        }
        return Response(body, media_type="application/octet-stream", headers=headers)


class _Parts(Struct, frozen=True):
    """Where the list goes on: positions to come from, or to go back from; None: it ends there."""

    earlier: int | None
    later: int | None
    stopped_at: int | None
    """Of a search that found less than a part, and did not look at everything."""


def _parts(wanted: LogSearch, done: FoundEvents) -> _Parts:
    more = done.events[PART].position if len(done.events) > PART else None
    if wanted.backwards:
        earlier = more if done.stopped_at is None else done.stopped_at - 1
        later = wanted.start + 1 if wanted.start < done.head else None
        return _Parts(earlier or None, later, done.stopped_at)
    later = more if done.stopped_at is None else done.stopped_at + 1
    return _Parts(wanted.start - 1 if wanted.start > 1 else None, later, done.stopped_at)


def _attempt(one: FoundEvent, policy: Policy) -> int | None:
    return attempt_of(
        one.source, one.event_time, one.received_at, policy.retry_interval, policy.retry_count
    )


def delivery_of(row: tuple[Any, ...]) -> LoggedDelivery:
    """Return the event of a row of the API's pages of the log."""
    return LoggedDelivery(*row[1:_WHY_AT])


def _shown(event: LoggedDelivery, caller: Caller, *, asked: bool) -> tuple[bytes, NoBody | None]:
    """Return what a key may see of a body, or why it sees none."""
    if event.body is None:
        return b"", "erased"
    if event.is_erasable and not caller.body_rule(asked=asked)(event.event_type):
        return b"", "withheld"
    return event.body, None


async def _read(services: Services, caller: Caller, position: int) -> tuple[int, LoggedDelivery]:
    """Return the log's position and an event; one of a foreign lab does not exist."""
    rows = []
    if 0 < position <= LAST_POSITION:
        rows = await services.fetch(ALL, [position - 1, 1])
    if rows and rows[0][1] == position:
        event = delivery_of(rows[0])
        if caller.sees(event.lab_id):
            return rows[0][0], event
    raise UnknownSubjectError(f"there is no event at position {position:,}")
