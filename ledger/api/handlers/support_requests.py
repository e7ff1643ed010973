"""Support requests over HTTP."""

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.params import Parameter
from litestar.response import Stream
from psycopg import Connection

from ledger.api.http.bodies import CloseBody, RequestBody, read_body
from ledger.api.http.content_negotiation import ChosenForm, Document, choose_form
from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.pages import first_page
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    LAST_POSITION,
    CursorText,
    Limit,
    read_cursor,
)
from ledger.api.http.responses import POSITION_HEADER, answer, decide, encode, ok
from ledger.api.permissions import Caller
from ledger.api.schemas import Page
from ledger.api.services import PATIENCE, Services
from ledger.model.operators import Operator
from ledger.operations.read_models import RequestItem, SupportRequest
from ledger.operations.render import Sender, write_request
from ledger.operations.support_requests import make, queries
from ledger.projection import store

LAST_NUMBER = 2**31 - 1

Number = Annotated[
    int, Parameter(ge=0, le=LAST_POSITION, description="The number of the support request.")
]


@post(
    "/v1/support-requests",
    opt=OPERATE,
    operation_id="MakeSupportRequest",
    responses={
        201: ok(SupportRequest, description="The new request."),
        204: ok(None, description="Nothing is overdue that was not asked for."),
    },
)
async def make_support_request(
    request: Request[Any, Any, Any], services: Services, operator: Operator
) -> Response[bytes]:
    """Make a support request for what is overdue and was neither waived nor asked for yet.

    Open loss windows are part of it. A key that is for some labs asks for these alone.
    """
    body = await read_body(request, RequestBody)
    made = await services.decide(
        lambda: make.make_request(
            services.url,
            services.policy,
            lab_id=body.lab_id,
            include_possible=body.include_possible,
            note=body.note,
            by=operator,
            patience=PATIENCE,
        )
    )
    if made is None:
        return Response(
            b"", status_code=204, headers={POSITION_HEADER: str(services.watch.position)}
        )
    response = answer(encode(made[0]), made[1])
    response.status_code = 201
    response.headers["Location"] = f"/v1/support-requests/{made[0].number}"
    return response


@get(
    "/v1/support-requests",
    opt=READ,
    operation_id="ListSupportRequests",
    responses={200: ok(Page[RequestItem], description="Newest first.")},
)
async def list_support_requests(
    services: Services, caller: Caller, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response[bytes]:
    """List support requests, each with the number of lines in each state."""
    key = read_cursor(cursor, int)
    before = min(key[0], LAST_NUMBER) if key else None

    def work(connection: Connection) -> tuple[int, list[RequestItem]]:
        position = store.read_checkpoint(connection).position
        return position, queries.list_requests(
            connection, limit=limit + 1, before=before, labs=caller.labs
        )

    position, found = await services.run(work)
    return answer(first_page(found, limit, encode, lambda item: (item.number,)), position)


@get(
    "/v1/support-requests/{number:int}",
    opt=READ,
    operation_id="GetSupportRequest",
    responses={200: ok(SupportRequest, description="The request; in markdown, a letter to send.")},
)
async def get_support_request(
    request: Request[Any, Any, Any],
    services: Services,
    caller: Caller,
    number: Number,
    chosen_format: ChosenForm = None,
) -> Response[bytes] | Stream:
    """Show a support request and what came of each line; in markdown, as a letter to send.

    A key that is for some labs gets the lines and windows of these alone.
    """
    form = choose_form(request, chosen_format)
    sender = Sender.of(services.settings)

    def work(connection: Connection) -> Document:
        position = store.read_checkpoint(connection).position
        found = queries.read_request(connection, number, labs=caller.labs)
        return Document.write(
            form,
            f"support-request-{number}",
            position,
            lambda file: write_request(found, form, file, sender=sender),
        )

    return (await services.run(work)).response()


@post(
    "/v1/support-requests/{number:int}/close",
    opt=OPERATE,
    operation_id="CloseSupportRequest",
    status_code=200,
    responses={200: ok(SupportRequest, description="The request as it is now.")},
)
async def close_support_request(
    request: Request[Any, Any, Any],
    services: Services,
    number: Number,
    operator: Operator,
) -> Response[bytes]:
    """Close a support request or some of its lines: what is asked for will not come.

    A key that is for some labs closes what is asked for these.
    """
    body = await read_body(request, CloseBody)
    return await decide(
        services,
        make.close_request,
        services.url,
        number,
        reason=body.reason,
        by=operator,
        lines=body.lines,
        patience=PATIENCE,
    )
