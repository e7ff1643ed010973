"""Erases the body of an event over HTTP."""

from typing import Annotated, Any

from litestar import Request, Response, post
from litestar.params import Parameter

from ledger.api.http.bodies import EraseBody, read_body
from ledger.api.http.guards import ADMIN
from ledger.api.http.parameters import LAST_POSITION
from ledger.api.http.responses import decide, ok
from ledger.api.services import Services
from ledger.model.operators import Operator
from ledger.operations.erasure import Erasure, erase


@post(
    "/v1/events/{position:int}/erase",
    opt=ADMIN,
    operation_id="EraseBody",
    status_code=200,
    responses={200: ok(Erasure, description="What was erased or, with `dry_run`, would be.")},
)
async def erase_body(
    request: Request[Any, Any, Any],
    services: Services,
    operator: Operator,
    position: Annotated[int, Parameter(ge=1, le=LAST_POSITION)],
) -> Response[bytes]:
    """Erase the body of an event that is not folded: of another type, or unreadable.

    Its place in the log, its times and its hashes stay. This cannot be taken back.
    """
    body = await read_body(request, EraseBody)
    return await decide(
        services,
        erase,
        services.url,
        position,
        reason=body.reason,
        by=operator,
        dry_run=body.dry_run,
    )
