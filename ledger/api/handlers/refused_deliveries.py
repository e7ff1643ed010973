"""Refused deliveries over HTTP: listed, shown, accepted into the log, dropped."""

from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import QueryParameter
from psycopg import Connection

from ledger.api.http.bodies import RefusedSelectionBody, read_body
from ledger.api.http.guards import ADMIN
from ledger.api.http.pages import first_page
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    from_microseconds,
    read_cursor,
    to_microseconds,
)
from ledger.api.http.paths import identifier
from ledger.api.http.problems import ProblemError
from ledger.api.http.responses import answer, decide, encode, ok
from ledger.api.permissions import Caller
from ledger.api.schemas import Page, RefusedDeliveryItem, shown_body
from ledger.api.services import Services
from ledger.model.operators import Operator
from ledger.operations.refused_deliveries.decide import Accepted, Dropped, accept, drop
from ledger.operations.refused_deliveries.keep import Refusal
from ledger.operations.refused_deliveries.queries import (
    RefusedDelivery,
    Selection,
    list_refused,
    read_refused,
)


@get(
    "/v1/refused-deliveries",
    opt=ADMIN,
    operation_id="ListRefusedDeliveries",
    responses={200: ok(Page[RefusedDelivery], description="The first received first.")},
)
async def list_refused_deliveries(
    services: Services,
    caller: Caller,
    lab_id: str | None = None,
    reason: Annotated[Refusal | None, QueryParameter(required=False)] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List the deliveries that were refused for their token and look like Flabs'.

    They are not in the log. They wait for a decision until they are too old.
    """
    key = read_cursor(cursor, int, str)
    after = (from_microseconds(key[0]), key[1]) if key else None
    selection = Selection(labs=caller.narrowed(lab_id), reason=reason)

    def work(connection: Connection) -> list[RefusedDelivery]:
        return list_refused(connection, selection, limit=limit + 1, after=after)

    def key_of(item: RefusedDelivery) -> tuple[int, str]:
        return to_microseconds(item.received_at), item.delivery_id

    found = await services.run(work)
    return answer(first_page(found, limit, encode, key_of), services.watch.position)


@get(
    "/v1/refused-deliveries/{delivery_id:str}",
    opt=ADMIN,
    operation_id="GetRefusedDelivery",
    responses={200: ok(RefusedDeliveryItem, description="The delivery with its body.")},
)
async def get_refused_delivery(
    services: Services, caller: Caller, delivery_id: str
) -> Response[bytes]:
    """Show a refused delivery with its body."""
    found, content = await services.run(
        partial(read_refused, delivery_id=identifier(delivery_id), labs=caller.labs)
    )
    body, raw = shown_body(content)
    item = RefusedDeliveryItem(**msgspec.structs.asdict(found), body=body, raw=raw)
    return answer(encode(item), services.watch.position)


@post(
    "/v1/refused-deliveries/accept",
    opt=ADMIN,
    operation_id="AcceptRefusedDeliveries",
    status_code=200,
    responses={200: ok(Accepted, description="How many were accepted or, with `dry_run`, would.")},
)
async def accept_refused_deliveries(
    request: Request[Any, Any, Any], services: Services, caller: Caller, operator: Operator
) -> Response[bytes]:
    """Accept refused deliveries: they enter the log with the time at which they were received.

    Each enters it once. What is in the log already counts as a repeat delivery.
    """
    selection, dry_run = await _selection(request, caller)
    return await decide(services, accept, services.url, selection, by=operator, dry_run=dry_run)


@post(
    "/v1/refused-deliveries/drop",
    opt=ADMIN,
    operation_id="DropRefusedDeliveries",
    status_code=200,
    responses={200: ok(Dropped, description="How many were dropped or, with `dry_run`, would.")},
)
async def drop_refused_deliveries(
    request: Request[Any, Any, Any], services: Services, caller: Caller, operator: Operator
) -> Response[bytes]:
    """Drop refused deliveries: they are deleted, and only what they were stays in the log.

    This cannot be taken back. Call it with `dry_run` first to see how many there are.
    """
    selection, dry_run = await _selection(request, caller)
    return await decide(services, drop, services.url, selection, by=operator, dry_run=dry_run)


async def _selection(request: Request[Any, Any, Any], caller: Caller) -> tuple[Selection, bool]:
    body = await read_body(request, RefusedSelectionBody)
    if body.all == (body.ids is not None or body.lab_id is not None):
        raise ProblemError(400, "give ids, lab_id or both, or else all: true")
    ids = None if body.ids is None else tuple(body.ids)
    return Selection(ids=ids, labs=caller.narrowed(body.lab_id)), body.dry_run
