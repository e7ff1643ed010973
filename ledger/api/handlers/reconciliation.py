"""The reconciliation report over HTTP."""

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.params import Parameter
from litestar.response import Stream
from psycopg import Connection

from ledger.api.http.content_negotiation import ChosenForm, Document, choose_form
from ledger.api.http.guards import READ
from ledger.api.http.parameters import OptionalPosition, time_parameter
from ledger.api.http.responses import ok
from ledger.api.permissions import Caller
from ledger.api.services import Services
from ledger.operations.read_models import Reconciliation
from ledger.operations.reconciliation.report import Question, reconcile
from ledger.operations.render import write_report


@get(
    "/v1/reconciliation",
    opt=READ,
    operation_id="GetReconciliation",
    responses={200: ok(Reconciliation, description="The report.")},
)
async def get_reconciliation(
    request: Request[Any, Any, Any],
    services: Services,
    caller: Caller,
    lab_id: str | None = None,
    as_of: Annotated[
        str | None,
        Parameter(
            description="The report as it stood at this time (RFC 3339); a time to come is now.",
            required=False,
        ),
    ] = None,
    position: OptionalPosition = None,
    chosen_format: ChosenForm = None,
) -> Response[bytes] | Stream:
    """Report everything that is missing, lab by lab.

    A request with the `as_of` and the `position` of a response gets the same report again later.
    """
    form = choose_form(request, chosen_format)
    now = datetime.now(UTC)
    question = Question(
        # An event that is still awaited must not be reported as overdue.
        as_of=min(time_parameter("as_of", as_of) or now, now),
        position=position,
        labs=caller.narrowed(lab_id),
    )

    def work(connection: Connection) -> Document:
        with reconcile(connection, services.policy, question) as (report, missing_events):
            return Document.write(
                form,
                "reconciliation",
                report.position,
                lambda file: write_report(report, missing_events, form, file),
            )

    return (await services.on_primary.run(work)).response()
