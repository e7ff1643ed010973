"""Reports across bills."""

from litestar import Response, get
from msgspec import Struct
from msgspec.structs import asdict, replace
from psycopg.sql import SQL, Composed

from ledger.api.http.guards import READ
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    OptionalPosition,
    read_cursor,
    write_cursor,
)
from ledger.api.http.responses import answer, encode, ok, page
from ledger.api.permissions import Caller
from ledger.api.schemas import Page, ReportItem
from ledger.api.services import Services
from ledger.model.operators import as_array

_LIST = """
SELECT
    c.position,
    r.position,
    r.lab_id,
    r.bill_id,
    r.integrator_id,
    r.test_id,
    r.status,
    r.completed_at,
    r.evidence
FROM state.checkpoint c
LEFT JOIN LATERAL ({reports}) r ON true
ORDER BY r.position DESC, r.test_id DESC
"""

# From bill to bill, the newest change first; a bill's reports follow each other.
_OF_BILLS = """
SELECT
    b.position,
    r.lab_id,
    r.bill_id,
    b.integrator_id,
    r.test_id,
    r.status,
    r.completed_at,
    r.evidence
FROM state.bill b
CROSS JOIN LATERAL (
    SELECT *
    FROM state.report r
    WHERE r.lab_id = b.lab_id AND r.bill_id = b.bill_id AND {reports}
    ORDER BY r.test_id DESC
    OFFSET 0
) r
WHERE {bills}
ORDER BY b.position DESC, r.test_id DESC
LIMIT %(limit)s
"""

_OF_TEST = """
SELECT
    r.position,
    r.lab_id,
    r.bill_id,
    b.integrator_id,
    r.test_id,
    r.status,
    r.completed_at,
    r.evidence
FROM (
    SELECT *
    FROM state.report r
    WHERE r.test_id = %(test_id)s AND {reports}
    ORDER BY r.position DESC
    LIMIT %(limit)s
) r
JOIN state.bill b ON b.lab_id = r.lab_id AND b.bill_id = r.bill_id
"""

Conditions = dict[str, str]
"""The SQL condition for each filter."""

_ON_BILLS: Conditions = {
    "lab_id": "b.lab_id = %(lab_id)s",
    "labs": "b.lab_id = ANY(%(labs)s::text[])",
    "changed_after": "b.position > %(changed_after)s",
    "position": "b.position <= %(position)s",
}
_ON_REPORTS: Conditions = {
    "lab_id": "r.lab_id = %(lab_id)s",
    "labs": "r.lab_id = ANY(%(labs)s::text[])",
    "changed_after": "r.position > %(changed_after)s",
    "position": "(r.position, r.test_id) < (%(position)s, %(test)s)",
}

# In the words of the partial indexes, so that bills and reports of the other kind are skipped.
_BILLS_WITH_REPORT = {
    True: "b.reports_completed > 0",
    False: "b.reports_completed < b.reports_total",
}
_REPORT_IS = {True: "r.evidence IS NOT NULL", False: "r.evidence IS NULL"}


class Wanted(Struct, frozen=True):
    """Which reports are listed; `position` and `test` are those of a cursor.

    One lab has an index of its own, so that it is not one of several `labs`.
    """

    lab_id: str | None = None
    test_id: str | None = None
    completed: bool | None = None
    changed_after: int | None = None
    position: int | None = None
    test: str | None = None
    labs: list[str] | None = None


def list_query(wanted: Wanted) -> Composed:
    """Return the query for a part of the list; without any report, it has one row of nulls."""
    bills, reports = _where(wanted, _ON_BILLS), _where(wanted, _ON_REPORTS)
    if wanted.completed is not None:
        bills.append(_BILLS_WITH_REPORT[wanted.completed])
        reports.append(_REPORT_IS[wanted.completed])
    template = _OF_BILLS if wanted.test_id is None else _OF_TEST
    listed = SQL(template).format(
        bills=SQL(" AND ".join(bills)), reports=SQL(" AND ".join(reports))
    )
    return SQL(_LIST).format(reports=listed)


def _where(wanted: Wanted, conditions: Conditions) -> list[str]:
    given = [sql for name, sql in conditions.items() if getattr(wanted, name) is not None]
    return ["true", *given]


@get(
    "/v1/reports",
    opt=READ,
    operation_id="ListReports",
    responses={200: ok(Page[ReportItem], description="Newest change first.")},
)
async def list_reports(
    services: Services,
    caller: Caller,
    lab_id: str | None = None,
    test_id: str | None = None,
    completed: bool | None = None,
    changed_after: OptionalPosition = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List reports, those of the bill that changed last first."""
    before = read_cursor(cursor, int, str) or ()
    labs = caller.narrowed(lab_id)
    only, several = (labs[0], None) if labs and len(labs) == 1 else (None, as_array(labs))
    wanted = Wanted(only, test_id, completed, changed_after, *before)
    wanted = replace(wanted, labs=several)
    values = {**asdict(wanted), "limit": limit + 1}
    rows = await services.fetch_state(list_query(wanted), values)
    found = [row for row in rows if row[2] is not None]
    items = (
        encode(
            ReportItem(
                lab_id=lab,
                bill_id=bill,
                integrator_id=integrator,
                test_id=test,
                status=status,
                completed_at=completed_at,
                evidence=evidence,
            )
        )
        for _, _, lab, bill, integrator, test, status, completed_at, evidence in found[:limit]
    )
    following = None
    if len(found) > limit:
        last = found[limit - 1]
        following = write_cursor(last[1], last[5])
    return answer(page(items, following), rows[0][0])
