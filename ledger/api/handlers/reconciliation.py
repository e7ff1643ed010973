"""The reconciliation over HTTP, and the loss windows."""

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.params import Parameter, QueryParameter
from litestar.response import Stream
from psycopg import Connection

from ledger.api.http.bodies import CloseWindowBody, read_body
from ledger.api.http.content_negotiation import ChosenForm, Written, choose_form, document
from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    OptionalPosition,
    read_cursor,
    time_parameter,
    write_cursor,
)
from ledger.api.http.responses import answer, ok, page
from ledger.api.schemas import Page
from ledger.api.services import PATIENCE, Services
from ledger.operations import loss_windows
from ledger.operations.missing_events.queries import LAST_POSITION
from ledger.operations.read_models import LossWindow, Reconciliation, WindowState
from ledger.operations.reconciliation.report import Question, reconcile
from ledger.operations.render import write_report
from ledger.projection import store
from ledger.projection.rows import encode


@get(
    "/v1/reconciliation",
    opt=READ,
    operation_id="GetReconciliation",
    responses={200: document(Reconciliation, description="The report; in JSON, this.")},
)
async def get_reconciliation(
    request: Request[Any, Any, Any],
    services: Services,
    lab_id: str | None = None,
    as_of: Annotated[
        str | None,
        Parameter(description="As it stood at this time (RFC 3339).", required=False),
    ] = None,
    position: OptionalPosition = None,
    chosen_format: ChosenForm = None,
) -> Response[bytes] | Stream:
    """Tell all that is missing, lab by lab.

    With the `as_of` and the `position` of an answer, the same question gives the same answer later.
    """
    form = choose_form(request, chosen_format)
    question = Question(
        as_of=time_parameter("as_of", as_of) or datetime.now(UTC),
        position=position,
        lab_id=lab_id,
    )

    def work(connection: Connection) -> Written:
        with reconcile(connection, services.policy, question) as (report, missing_events):
            return Written(form, "reconciliation").write(
                report.position, lambda file: write_report(report, missing_events, form, file)
            )

    return (await services.run(work)).response()


@get(
    "/v1/loss-windows",
    opt=READ,
    operation_id="ListLossWindows",
    responses={200: ok(Page[LossWindow], description="In order of time.")},
)
async def list_loss_windows(
    services: Services,
    lab_id: str | None = None,
    window_state: Annotated[
        WindowState | None, QueryParameter(name="state", required=False)
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List the times whose events were lost with all attempts, and the labs that they concern."""

    def work(connection: Connection) -> tuple[int, list[LossWindow]]:
        position = store.read_checkpoint(connection).position
        now = datetime.now(UTC)
        found = loss_windows.read_windows(
            connection, services.policy, now, position=LAST_POSITION, lab_id=lab_id
        )
        return position, found

    position, found = await services.run(work)
    if window_state is not None:
        found = [window for window in found if window.state == window_state]
    after = read_cursor(cursor, int)
    begin = after[0] if after else 0
    following = write_cursor(begin + limit) if len(found) > begin + limit else None
    return answer(page(map(encode, found[begin : begin + limit]), following), position)


@post(
    "/v1/loss-windows/close",
    opt=OPERATE,
    operation_id="CloseLossWindow",
    status_code=200,
    responses={200: ok(Page[LossWindow], description="The window, closed, in its parts.")},
)
async def close_loss_window(
    request: Request[Any, Any, Any], services: Services, operator: str
) -> Response[bytes]:
    """Say that all that was lost in a window has come, or never will."""
    body = await read_body(request, CloseWindowBody)

    def work(_: Connection) -> tuple[list[LossWindow], int]:
        return loss_windows.close_window(
            services.url,
            services.policy,
            (body.begin, body.end),
            labs=body.labs,
            reason=body.reason,
            by=operator,
            patience=PATIENCE,
        )

    closed, position = await services.run(work)
    return answer(page(map(encode, closed), None), position)
