"""Loss windows over HTTP."""

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.params import QueryParameter
from psycopg import Connection

from ledger.api.http.bodies import CloseWindowBody, read_body
from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    LAST_POSITION,
    CursorText,
    Limit,
    read_cursor,
    write_cursor,
)
from ledger.api.http.responses import answer, encode, ok, page
from ledger.api.permissions import Caller
from ledger.api.schemas import Page
from ledger.api.services import PATIENCE, Services
from ledger.model.operators import Operator
from ledger.operations import loss_windows
from ledger.operations.read_models import LossWindow, WindowState
from ledger.projection import store


@get(
    "/v1/loss-windows",
    opt=READ,
    operation_id="ListLossWindows",
    responses={200: ok(Page[LossWindow], description="In order of time.")},
)
async def list_loss_windows(
    services: Services,
    caller: Caller,
    lab_id: str | None = None,
    window_state: Annotated[
        WindowState | None, QueryParameter(name="state", required=False)
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List the times in which every attempt of an event failed, and the labs concerned."""
    after = read_cursor(cursor, int)
    labs = caller.narrowed(lab_id)

    def work(connection: Connection) -> tuple[int, list[LossWindow]]:
        position = store.read_checkpoint(connection).position
        now = datetime.now(UTC)
        found = loss_windows.read_windows(
            connection, services.policy, now, position=LAST_POSITION, labs=labs
        )
        return position, found

    position, found = await services.on_primary.run(work)
    if window_state is not None:
        found = [window for window in found if window.state == window_state]
    begin = after[0] if after else 0
    following = write_cursor(begin + limit) if len(found) > begin + limit else None
    return answer(page(map(encode, found[begin : begin + limit]), following), position)


@post(
    "/v1/loss-windows/close",
    opt=OPERATE,
    operation_id="CloseLossWindow",
    status_code=200,
    responses={200: ok(Page[LossWindow], description="The closed window, in its parts.")},
)
async def close_loss_window(
    request: Request[Any, Any, Any], services: Services, operator: Operator
) -> Response[bytes]:
    """Close a loss window: all that was lost in it has come, or never will."""
    body = await read_body(request, CloseWindowBody)
    closed, position = await services.decide(
        lambda: loss_windows.close_window(
            services.url,
            services.policy,
            (body.begin, body.end),
            labs=body.labs,
            reason=body.reason,
            by=operator,
            patience=PATIENCE,
        )
    )
    return answer(page(map(encode, closed), None), position)
