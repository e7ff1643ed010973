"""Reports across bills."""

from typing import Any

from litestar import Response, get
from psycopg.sql import SQL, Composable

from ledger.api.answers import answer, ok, page, with_members
from ledger.api.guards import READ
from ledger.api.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    OptionalPosition,
    read_cursor,
    write_cursor,
)
from ledger.api.services import Services
from ledger.api.wire import Page, ReportItem
from ledger.projection.rows import encode

_LIST = """
SELECT c.position, r.position, r.lab_id, r.bill_id, r.test_id, r.integrator_id, r.report
FROM state.checkpoint c
LEFT JOIN LATERAL (
    SELECT r.position, r.lab_id, r.bill_id, r.test_id, r.integrator_id, r.report
    FROM state.report r
    WHERE {where}
    ORDER BY r.position DESC, r.test_id DESC
    LIMIT %s
) r ON true
ORDER BY r.position DESC, r.test_id DESC
"""


@get(
    "/v1/reports",
    opt=READ,
    operation_id="ListReports",
    responses={200: ok(Page[ReportItem], description="Newest change first.")},
)
async def list_reports(
    services: Services,
    lab_id: str | None = None,
    test_id: str | None = None,
    completed: bool | None = None,
    changed_after: OptionalPosition = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List reports, those of the bill that changed last first."""
    where: list[Composable] = [SQL("true")]
    values: list[Any] = []
    for condition, value in (
        (SQL("r.lab_id = %s"), lab_id),
        (SQL("r.test_id = %s"), test_id),
        (SQL("r.position > %s"), changed_after),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    if completed is not None:
        where.append(SQL("r.is_completed") if completed else SQL("NOT r.is_completed"))
    if before := read_cursor(cursor, int, str):
        where.append(SQL("(r.position, r.test_id) < (%s, %s)"))
        values += before
    query = SQL(_LIST).format(where=SQL(" AND ").join(where))
    rows = await services.fetch(query, [*values, limit + 1])
    found = [row for row in rows if row[6] is not None]
    items = (
        with_members(
            report, lab_id=encode(lab), bill_id=encode(bill), integrator_id=encode(integrator)
        )
        for _, _, lab, bill, _, integrator, report in found[:limit]
    )
    following = None
    if len(found) > limit:
        following = write_cursor(found[limit - 1][1], found[limit - 1][4])
    return answer(page(items, following), rows[0][0])
