"""Support requests over HTTP."""

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.params import Parameter
from litestar.response import Stream
from psycopg import Connection

from ledger.api.http.bodies import CloseBody, RequestBody, read_body
from ledger.api.http.content_negotiation import ChosenForm, Written, choose_form, document
from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.parameters import DEFAULT_LIMIT, CursorText, Limit, read_cursor, write_cursor
from ledger.api.http.responses import POSITION_HEADER, answer, ok, page
from ledger.api.schemas import Page
from ledger.api.services import PATIENCE, Services
from ledger.operations.read_models import RequestItem, SupportRequest
from ledger.operations.render import Sender, write_request
from ledger.operations.support_requests import make, queries
from ledger.projection import store
from ledger.projection.rows import encode

Number = Annotated[int, Parameter(description="The number of the request.")]


@post(
    "/v1/support-requests",
    opt=OPERATE,
    operation_id="MakeSupportRequest",
    responses={
        201: ok(SupportRequest, description="The request that was made."),
        204: ok(None, description="Nothing is overdue that was not asked for."),
    },
)
async def make_support_request(
    request: Request[Any, Any, Any], services: Services, operator: str
) -> Response[bytes]:
    """Ask for what is overdue, neither waived nor asked for yet, and for open loss windows."""
    body = await read_body(request, RequestBody)

    def work(_: Connection) -> tuple[SupportRequest, int] | None:
        return make.make_request(
            services.url,
            services.policy,
            lab_id=body.lab_id,
            include_possible=body.include_possible,
            note=body.note,
            by=operator,
            patience=PATIENCE,
        )

    made = await services.run(work)
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
    responses={200: ok(Page[RequestItem], description="The newest first.")},
)
async def list_support_requests(
    services: Services, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response[bytes]:
    """List what was asked of support, and how much of it has come."""
    before = read_cursor(cursor, int)

    def work(connection: Connection) -> tuple[int, list[RequestItem]]:
        position = store.read_checkpoint(connection).position
        found = queries.list_requests(
            connection, limit=limit + 1, before=before[0] if before else None
        )
        return position, found

    position, found = await services.run(work)
    following = write_cursor(found[limit - 1].number) if len(found) > limit else None
    return answer(page(map(encode, found[:limit]), following), position)


@get(
    "/v1/support-requests/{number:int}",
    opt=READ,
    operation_id="GetSupportRequest",
    responses={
        200: document(SupportRequest, description="The request; in markdown, a letter to send.")
    },
)
async def get_support_request(
    request: Request[Any, Any, Any],
    services: Services,
    number: Number,
    chosen_format: ChosenForm = None,
) -> Response[bytes] | Stream:
    """Tell what a support request asked for and what came of it; in markdown, ready to send."""
    form = choose_form(request, chosen_format)
    sender = Sender.of(services.settings)

    def work(connection: Connection) -> Written:
        position = store.read_checkpoint(connection).position
        found = queries.read_request(connection, number)
        return Written(form, f"support-request-{number}").write(
            position, lambda file: write_request(found, form, file, sender=sender)
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
    operator: str,
) -> Response[bytes]:
    """Close what was asked for and will not come, with a reason: some lines, or the request."""
    body = await read_body(request, CloseBody)

    def work(_: Connection) -> tuple[SupportRequest, int]:
        return make.close_request(
            services.url,
            number,
            reason=body.reason,
            by=operator,
            lines=body.lines,
            patience=PATIENCE,
        )

    closed, position = await services.run(work)
    return answer(encode(closed), position)
