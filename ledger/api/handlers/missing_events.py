"""Missing events over HTTP: of one bill, and of all."""

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.params import QueryParameter
from psycopg import Connection

from ledger.api.http.bodies import UnwaiveBody, WaiveBody, WaiveMatchingBody, read_body
from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    from_microseconds,
    read_cursor,
    to_microseconds,
    write_cursor,
)
from ledger.api.http.problem_handlers import ProblemError
from ledger.api.http.responses import answer, ok, page
from ledger.api.schemas import Page
from ledger.api.services import PATIENCE, Services
from ledger.event_types import EventType
from ledger.model.missing_events import Certainty, MissingState
from ledger.operations.missing_events.queries import Filter, cursor_of, item_of, list_query
from ledger.operations.missing_events.waive import Waived, unwaive, waive, waive_matching
from ledger.operations.read_models import MissingEventItem
from ledger.projection.rows import encode


@get(
    "/v1/missing-events",
    opt=READ,
    operation_id="ListMissingEvents",
    responses={200: ok(Page[MissingEventItem], description="Oldest first.")},
)
async def list_missing_events(
    services: Services,
    missing_state: Annotated[
        MissingState | None,
        QueryParameter(name="state", description="What is to be said of it now.", required=False),
    ] = None,
    lab_id: str | None = None,
    event_type: EventType | None = None,
    certainty: Certainty | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List the events that were sent and never came, the one missing longest first."""
    now = datetime.now(UTC)
    key = read_cursor(cursor, int, str, str, str, str)
    after = (from_microseconds(key[0]), key[1], key[2], key[3], key[4]) if key else None
    query, values = list_query(
        Filter(state=missing_state, lab_id=lab_id, event_type=event_type, certainty=certainty),
        services.policy,
        now,
        limit=limit + 1,
        after=after,
    )
    rows = await services.fetch(query, values)
    found = [row for row in rows if row[1] is not None]
    following = None
    if len(found) > limit:
        received, *rest = cursor_of(found[limit - 1])
        following = write_cursor(to_microseconds(received), *rest)
    shown = (encode(item_of(row[1:], services.policy, now)) for row in found[:limit])
    return answer(page(shown, following), rows[0][0])


@post(
    "/v1/missing-events/waive",
    opt=OPERATE,
    operation_id="WaiveMissingEvent",
    status_code=200,
    responses={200: ok(MissingEventItem, description="The missing event, waived.")},
)
async def waive_missing_event(
    request: Request[Any, Any, Any], services: Services, operator: str
) -> Response[bytes]:
    """Say that a missing event will not be asked for, and why."""
    body = await read_body(request, WaiveBody)

    def work(_: Connection) -> tuple[MissingEventItem, int]:
        return waive(
            services.url,
            services.policy,
            (body.lab_id, body.bill_id, body.event_type, body.test_id),
            reason=body.reason,
            by=operator,
            patience=PATIENCE,
        )

    item, position = await services.run(work)
    return answer(encode(item), position)


@post(
    "/v1/missing-events/unwaive",
    opt=OPERATE,
    operation_id="UnwaiveMissingEvent",
    status_code=200,
    responses={200: ok(MissingEventItem, description="The missing event, no longer waived.")},
)
async def unwaive_missing_event(
    request: Request[Any, Any, Any], services: Services, operator: str
) -> Response[bytes]:
    """Take back the waiver of a missing event, so that the event can be asked for again.

    It takes back every earlier waiver of the event, including one implied by closing the line of a
    support request that asked for it. An event that is not waived stays as it is.
    """
    body = await read_body(request, UnwaiveBody)

    def work(_: Connection) -> tuple[MissingEventItem, int]:
        return unwaive(
            services.url,
            services.policy,
            (body.lab_id, body.bill_id, body.event_type, body.test_id),
            reason=body.reason,
            by=operator,
            patience=PATIENCE,
        )

    item, position = await services.run(work)
    return answer(encode(item), position)


@post(
    "/v1/missing-events/waive-matching",
    opt=OPERATE,
    operation_id="WaiveMissingEvents",
    status_code=200,
    responses={200: ok(Waived, description="How many were waived or, `dry_run`, would be.")},
)
async def waive_missing_events(
    request: Request[Any, Any, Any], services: Services, operator: str
) -> Response[bytes]:
    """Waive all that a filter finds and that was not asked for; look first with `dry_run`."""
    body = await read_body(request, WaiveMatchingBody)
    if not (body.lab_id or body.event_type or body.certainty or body.before):
        raise ProblemError(
            400, "at least one of lab_id, event_type, certainty and before must say which are meant"
        )

    def work(_: Connection) -> tuple[Waived, int]:
        return waive_matching(
            services.url,
            services.policy,
            Filter(
                lab_id=body.lab_id,
                event_type=body.event_type,
                certainty=body.certainty,
                known_before=body.before,
            ),
            reason=body.reason,
            by=operator,
            dry_run=body.dry_run,
            patience=PATIENCE,
        )

    waived, position = await services.run(work)
    return answer(encode(waived), position)
