"""Missing events over HTTP: the list, and their waivers."""

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.params import QueryParameter

from ledger.api.http.bodies import UnwaiveBody, WaiveBody, WaiveMatchingBody, read_body
from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.pages import first_page
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    from_microseconds,
    read_cursor,
    to_microseconds,
)
from ledger.api.http.problems import ProblemError
from ledger.api.http.responses import answer, decide, encode, ok
from ledger.api.permissions import Caller
from ledger.api.schemas import Page
from ledger.api.services import PATIENCE, Services
from ledger.event_types import EventType
from ledger.model.missing_events import Certainty, MissingState
from ledger.model.operators import Operator
from ledger.operations.missing_events.queries import Filter, cursor_of, item_of, list_query
from ledger.operations.missing_events.waive import Waived, unwaive, waive, waive_matching
from ledger.operations.read_models import MissingEventItem


@get(
    "/v1/missing-events",
    opt=READ,
    operation_id="ListMissingEvents",
    responses={200: ok(Page[MissingEventItem], description="Oldest first.")},
)
async def list_missing_events(
    services: Services,
    caller: Caller,
    missing_state: Annotated[
        MissingState | None, QueryParameter(name="state", required=False)
    ] = None,
    lab_id: str | None = None,
    event_type: EventType | None = None,
    certainty: Certainty | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List missing events, the one missing longest first.

    Another event of the bill proves that the missing event was sent, or suggests it.
    """
    now = datetime.now(UTC)
    key = read_cursor(cursor, int, str, str, str, str)
    query, values = list_query(
        Filter(
            state=missing_state,
            labs=caller.narrowed(lab_id),
            event_type=event_type,
            certainty=certainty,
        ),
        services.policy,
        now,
        limit=limit + 1,
        after=(from_microseconds(key[0]), key[1], key[2], key[3], key[4]) if key else None,
    )
    rows = await services.fetch_state(query, values)

    def write(row: tuple[Any, ...]) -> bytes:
        return encode(item_of(row[1:], services.policy, now))

    def key_of(row: tuple[Any, ...]) -> tuple[int | str, ...]:
        received, *rest = cursor_of(row)
        return (to_microseconds(received), *rest)

    found = [row for row in rows if row[1] is not None]
    return answer(first_page(found, limit, write, key_of), rows[0][0])


@post(
    "/v1/missing-events/waive",
    opt=OPERATE,
    operation_id="WaiveMissingEvent",
    status_code=200,
    responses={200: ok(MissingEventItem, description="The missing event, waived.")},
)
async def waive_missing_event(
    request: Request[Any, Any, Any], services: Services, operator: Operator
) -> Response[bytes]:
    """Waive a missing event: it will not be asked for. Takes the reason."""
    body = await read_body(request, WaiveBody)
    return await decide(
        services,
        waive,
        services.url,
        services.policy,
        (body.lab_id, body.bill_id, body.event_type, body.test_id),
        reason=body.reason,
        by=operator,
        patience=PATIENCE,
    )


@post(
    "/v1/missing-events/unwaive",
    opt=OPERATE,
    operation_id="UnwaiveMissingEvent",
    status_code=200,
    responses={200: ok(MissingEventItem, description="The missing event, no longer waived.")},
)
async def unwaive_missing_event(
    request: Request[Any, Any, Any], services: Services, operator: Operator
) -> Response[bytes]:
    """Take back the waiver of a missing event, so that the event can be asked for again.

    It takes back every earlier waiver of the event, including one implied by closing the line of a
    support request that asked for it. An event that is not waived stays as it is.
    """
    body = await read_body(request, UnwaiveBody)

    return await decide(
        services,
        unwaive,
        services.url,
        services.policy,
        (body.lab_id, body.bill_id, body.event_type, body.test_id),
        reason=body.reason,
        by=operator,
        patience=PATIENCE,
    )


@post(
    "/v1/missing-events/waive-matching",
    opt=OPERATE,
    operation_id="WaiveMissingEvents",
    status_code=200,
    responses={200: ok(Waived, description="How many were waived or, with `dry_run`, would be.")},
)
async def waive_missing_events(
    request: Request[Any, Any, Any], services: Services, operator: Operator
) -> Response[bytes]:
    """Waive all missing events that match a filter and were not asked for.

    Call it with `dry_run` first to see how many match.
    """
    body = await read_body(request, WaiveMatchingBody)
    if not (body.lab_id or body.event_type or body.certainty or body.before):
        raise ProblemError(
            400, "give at least one of lab_id, event_type, certainty and before as the filter"
        )
    return await decide(
        services,
        waive_matching,
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
