"""The log: events from any position, and one event with its body as it came."""

import json
from typing import Any

from litestar import Controller, Request, Response, get
from psycopg.sql import SQL

from ledger.api.handlers.events import ALL, ALL_UNREADABLE, of_labs_query
from ledger.api.http.guards import READ
from ledger.api.http.parameters import LAST_POSITION
from ledger.api.permissions import Caller
from ledger.api.schemas import NoBody, attempt
from ledger.api.services import Services
from ledger.errors import ForbiddenError, UnknownSubjectError
from ledger.eventlog.read import LoggedDelivery
from ledger.model.operators import as_array
from ledger.model.unreadable import Reason
from ledger.page.headers import SECURITY
from ledger.page.parameters import Yes, choice_of, number_of
from ledger.page.render import respond

PART = 50
SHOWN_BYTES = 64 * 1024
"""Of a body on the page; the download has all of it."""

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
        """List events in order of position, from any position on."""
        start = number_of(request, "from")
        if start is None:  # the newest ones
            start = max(services.watch.position - PART + 1, 1)
        after, most = max(start - 1, 0), PART + 1
        if caller.labs is None:
            rows = await services.fetch(ALL, [after, most])
        else:
            rows = await services.fetch(
                of_labs_query(services), [list(caller.labs), after, most, most]
            )
        found = [delivery_of(row) for row in rows if row[1] is not None]
        policy = services.policy
        events = [
            (one, attempt(one, policy.retry_interval, policy.retry_count)) for one in found[:PART]
        ]
        following = found[PART].position if len(found) > PART else None
        return respond(
            request, "log.html", position=rows[0][0], events=events, start=start,
            following=following, earlier=max(start - PART, 1) if start > 1 else None,
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
        found = [
            (delivery_of(row), row[_WHY_AT : _WHY_AT + 3]) for row in rows if row[1] is not None
        ]
        following = found[PART][0].position if len(found) > PART else None
        return respond(
            request, "unreadable.html", position=rows[0][0], events=found[:PART],
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
        text, is_text = _text(body[:SHOWN_BYTES])
        policy = services.policy
        return respond(
            request, "event.html", position=head, event=event, why=why[0] if why else None,
            nth=attempt(event, policy.retry_interval, policy.retry_count), text=text,
            is_text=is_text, cut=len(body) > SHOWN_BYTES, no_body=no_body,
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


def _text(body: bytes) -> tuple[str, bool]:
    """Return a body as text, with what cannot be seen escaped; and whether it is text."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        if error.start < len(body) - 3 or len(body) < SHOWN_BYTES:
            return body.decode("latin-1").encode("unicode_escape").decode(), False
        text = body.decode(errors="ignore")  # cut in the middle of a character
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text), True


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]
