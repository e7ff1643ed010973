"""Reports across bills."""

from collections.abc import Iterator
from typing import Any

from litestar import Response, get
from msgspec import Struct
from msgspec.structs import asdict
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
from ledger.api.http.responses import answer, ok, page, with_members
from ledger.api.schemas import Page, ReportItem
from ledger.api.services import Services
from ledger.projection.rows import encode
from ledger.projection.stored import read_report

_LIST = """
SELECT c.position, r.position, r.lab_id, r.bill_id, r.test_id, r.integrator_id, r.report
FROM state.checkpoint c
LEFT JOIN LATERAL ({reports}) r ON true
ORDER BY r.position DESC, r.test_id DESC
"""

_OF_BILLS = """
SELECT r.position, r.lab_id, r.bill_id, r.test_id, r.integrator_id, r.report
FROM state.report r
WHERE {where}
ORDER BY r.position DESC, r.test_id DESC
LIMIT %(limit)s
"""

# A bill has one report of a test: as many bills are enough. The operator -> would read all of the
# reports, and refuse NUL in a status.
_OF_TEST = """
SELECT
    b.position, b.lab_id, b.bill_id, %(test_id)s AS test_id, b.integrator_id,
    (
        SELECT e.report
        FROM json_array_elements(b.reports) WITH ORDINALITY AS e (report, nth)
        WHERE e.nth = array_position(b.test_ids, %(test_id)s)
    ) AS report
FROM (SELECT r.* FROM state.bill r WHERE {where} ORDER BY {order} DESC LIMIT %(limit)s) b
"""

NEAR = 10_000
"""How many bills are gone through for a test, the newest first, before the index of tests is asked.
That finds all the bills of a test; of one that many have, the newest are among these."""

_LAB = "r.lab_id = %(lab_id)s"
_AFTER = "r.position > %(changed_after)s"
_UPTO = "r.position <= %(position)s"

Conditions = dict[str, str]
"""By what is asked for."""

_ON_REPORTS: Conditions = {
    "lab_id": _LAB,
    "test_id": "r.test_id = %(test_id)s",
    "completed": "r.is_completed = %(completed)s",
    "changed_after": _AFTER,
    "position": f"{_UPTO} AND (r.position, r.test_id) < (%(position)s, %(test)s)",
}
_ON_BILLS: Conditions = {"lab_id": _LAB, "changed_after": _AFTER, "position": _UPTO}
_ON_THE_TEST: Conditions = {
    "completed": "r.completed[array_position(r.test_ids, %(test_id)s)] = %(completed)s",
    "position": "(r.position, %(test_id)s) < (%(position)s, %(test)s)",
}

# Not by the index of tests, which knows another operator.
_NEAR = """%(test_id)s = ANY (r.test_ids) AND r.position >= coalesce(
    (SELECT r.position FROM state.bill r WHERE {where} ORDER BY r.position DESC OFFSET {near}
    LIMIT 1), 0)"""
# By that index, for none has the order of the sum.
_ANYWHERE = "r.test_ids @> ARRAY[%(test_id)s]"
_ITS_ORDER = "r.position + 0"


class Wanted(Struct, frozen=True):
    """What of the reports is asked for; the last two are those of a cursor."""

    lab_id: str | None = None
    test_id: str | None = None
    completed: bool | None = None
    changed_after: int | None = None
    position: int | None = None
    test: str | None = None

    def where(self, *conditions: Conditions, more: str = "true") -> SQL:
        """Join those conditions that are on what is asked for."""
        given = [
            condition
            for some in conditions
            for name, condition in some.items()
            if getattr(self, name) is not None
        ]
        return SQL(" AND ".join([*given, more]))


def list_queries(wanted: Wanted) -> Iterator[Composed]:
    """Yield the queries to ask in turn, until one fills the list; the last has all there is."""
    # A bill without any such report need not be looked at; said as the indexes of bills say it.
    some = "true" if wanted.completed is None else f"{wanted.completed} = ANY ({{}})".lower()
    if wanted.test_id is None:
        yield _query(_OF_BILLS, wanted.where(_ON_REPORTS, more=some.format("r.bill_completed")))
        return
    some = some.format("r.completed")
    near = _NEAR.format(where=wanted.where(_ON_BILLS, more=some).as_string(), near=NEAR)
    for more, order in ((near, "r.position"), (_ANYWHERE, _ITS_ORDER)):
        where = wanted.where(_ON_BILLS, _ON_THE_TEST, more=f"{some} AND {more}")
        yield _query(_OF_TEST, where, order=SQL(order))


def _query(reports: str, where: SQL, **more: SQL) -> Composed:
    return SQL(_LIST).format(reports=SQL(reports).format(where=where, **more))


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
    before = read_cursor(cursor, int, str) or ()
    wanted = Wanted(lab_id, test_id, completed, changed_after, *before)
    rows = await _fetch(services, wanted, limit + 1)
    found = [row for row in rows if row[6] is not None]
    items = (
        with_members(
            encode(read_report(report)),
            lab_id=encode(lab),
            bill_id=encode(bill),
            integrator_id=encode(integrator),
        )
        for _, _, lab, bill, _, integrator, report in found[:limit]
    )
    following = None
    if len(found) > limit:
        following = write_cursor(found[limit - 1][1], found[limit - 1][4])
    return answer(page(items, following), rows[0][0])


async def _fetch(services: Services, wanted: Wanted, limit: int) -> list[Any]:
    values = {**asdict(wanted), "limit": limit}
    rows: list[Any] = []
    for query in list_queries(wanted):
        rows = await services.fetch(query, values)
        if len(rows) == limit:
            break
    return rows
