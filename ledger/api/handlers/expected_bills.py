"""Expected bills over HTTP."""

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request, Response, delete, get, post, put
from litestar.params import QueryParameter
from psycopg import Connection

from ledger.api.http.bodies import ExpectedBody, read_body
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
from ledger.api.http.paths import identifier
from ledger.api.http.responses import POSITION_HEADER, answer, decide, encode, ok
from ledger.api.http.uploads import work_on_file
from ledger.api.permissions import Caller
from ledger.api.schemas import Page
from ledger.api.services import PATIENCE, Services
from ledger.eventlog.import_files import ImportFile
from ledger.model.operators import Operator
from ledger.operations import expected_bills
from ledger.operations.expected_bill_list import ExpectedItem, cursor_of, item_of, list_query
from ledger.operations.expected_bills import Expectation, ExpectedBillsReport
from ledger.operations.read_models import ExpectedState


@put(
    "/v1/expected-bills/{integrator_id:str}",
    opt=OPERATE,
    operation_id="ExpectBill",
    responses={200: ok(ExpectedItem, description="The expected bill as it is now.")},
)
async def expect_bill(
    request: Request[Any, Any, Any],
    services: Services,
    integrator_id: str,
    operator: Operator,
) -> Response[bytes]:
    """Expect an event of a bill with this integrator id by a time."""
    body = await read_body(request, ExpectedBody)
    return await decide(
        services,
        expected_bills.expect_one,
        services.url,
        Expectation(identifier(integrator_id), body.expected_by, body.lab_id),
        by=operator,
        patience=PATIENCE,
    )


@delete(
    "/v1/expected-bills/{integrator_id:str}",
    opt=OPERATE,
    operation_id="StopExpectingBill",
    status_code=204,
)
async def stop_expecting_bill(
    services: Services, integrator_id: str, operator: Operator
) -> Response[None]:
    """Stop expecting a bill, from whichever lab."""
    wanted = identifier(integrator_id)
    position = await services.decide(
        lambda: expected_bills.stop_expecting(services.url, wanted, by=operator, patience=PATIENCE)
    )
    return Response(None, headers={POSITION_HEADER: str(position)})


@post(
    "/v1/expected-bills",
    opt=OPERATE,
    operation_id="ExpectBills",
    status_code=200,
    request_max_body_size=None,  # the file has a limit of its own
    responses={
        200: ok(ExpectedBillsReport, description="How many were taken, and which lines were not.")
    },
)
async def expect_bills(
    request: Request[Any, Any, Any], services: Services, operator: Operator
) -> Response[bytes]:
    """Import a file of expected bills.

    JSON Lines, or CSV that names integrator_id, expected_by and, where it is known, lab_id in its
    first line, separated by commas, semicolons or tabs. The last expectation of an integrator_id
    counts. A key that is for some labs records bills of these alone; any other file is refused as a
    whole.
    """

    def work(_: Connection, file: ImportFile) -> tuple[ExpectedBillsReport, int]:
        expected_bills.check_labs(expected_bills.read_expectations(file), by=operator)
        expectations = expected_bills.read_expectations(file)
        return expected_bills.expect(services.url, expectations, by=operator, patience=PATIENCE)

    found, position = await work_on_file(request, services, work)
    return answer(encode(found), position)


@get(
    "/v1/expected-bills",
    opt=READ,
    operation_id="ListExpectedBills",
    responses={200: ok(Page[ExpectedItem], description="The one expected first comes first.")},
)
async def list_expected_bills(
    services: Services,
    caller: Caller,
    expected_state: Annotated[
        ExpectedState | None, QueryParameter(name="state", required=False)
    ] = None,
    lab_id: str | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List bills that are or were expected: awaited, unseen by their time, or seen."""
    now = datetime.now(UTC)
    key = read_cursor(cursor, int, str, str)
    query, values = list_query(
        expected_state,
        now,
        labs=caller.narrowed(lab_id),
        after=(from_microseconds(key[0]), key[1], key[2]) if key else None,
        limit=limit + 1,
    )
    rows = await services.fetch_state(query, values)

    def key_of(row: tuple[Any, ...]) -> tuple[int, str, str]:
        expected_by, integrator_id, lab_id = cursor_of(row)
        return to_microseconds(expected_by), integrator_id, lab_id

    content = first_page(
        [row for row in rows if row[1] is not None],
        limit,
        lambda row: encode(item_of(row, now)),
        key_of,
    )
    return answer(content, rows[0][0])
