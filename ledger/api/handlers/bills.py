"""One bill, as it is now or as it was known at a time, and bills in lists."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated

from litestar import Response, get
from litestar.params import Parameter, QueryParameter
from psycopg.sql import SQL

from ledger.api.bill_reader import BILLS, StoredBill, stored_bill
from ledger.api.handlers.unknown_bills import unknown_bill
from ledger.api.http.guards import READ
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    OptionalPosition,
    read_cursor,
    time_parameter,
    write_cursor,
)
from ledger.api.http.paths import identifier
from ledger.api.http.problems import ProblemError
from ledger.api.http.responses import answer, encode, ok, page, with_members
from ledger.api.permissions import Caller
from ledger.api.schemas import Bill, BillItem, Page
from ledger.api.services import Services
from ledger.errors import BillTooLargeError
from ledger.eventlog import read
from ledger.eventlog.read import Key, LogRow
from ledger.model.bill import Bill as FoldedBill
from ledger.model.bill import BillSummary, Report, State, fold
from ledger.model.bill_history import history_of
from ledger.model.findings import Finding, findings
from ledger.operations.bill_lists import Condition, list_query, listed, of_labs
from ledger.operations.missing_events.queries import decode_many, items, parameters
from ledger.operations.policy import Policy
from ledger.operations.read_models import MissingEventItem
from ledger.projection.read_event import BillEvents, read_row

_BILLS = SQL(BILLS)

_FETCHED = 1024 * 1024
"""Bytes of a bill's bodies that are read at once; those of more are read one by one in a thread."""

_SUBSCRIPTION = SQL("""
SELECT s.events
FROM state.subscription s
JOIN ledger.event_log e ON e.lab_id = s.lab_id AND e.position = s.position
WHERE s.lab_id = %s AND e.received_at <= %s
ORDER BY s.position DESC LIMIT 1
""")

_SIZE = SQL("""
SELECT
    ledger.last_position(),
    (
        SELECT coalesce(sum(octet_length(body)), 0)::int8
        FROM ledger.logged_event
        WHERE lab_id = %s AND bill_id = %s
    )
""")


@get(
    "/v1/labs/{lab_id:str}/bills/{bill_id:str}",
    opt=READ,
    operation_id="GetBill",
    responses={200: ok(Bill, description="The bill.")},
)
async def get_bill(
    services: Services,
    caller: Caller,
    lab_id: str,
    bill_id: str,
    known_at: Annotated[
        str | None,
        Parameter(description="Only what had been received by then (RFC 3339).", required=False),
    ] = None,
    as_of: Annotated[
        str | None,
        Parameter(description="Only what had happened by then (RFC 3339).", required=False),
    ] = None,
) -> Response[bytes]:
    """Return the state of a bill: now, as it was known at a time, or as it stood at a time."""
    key = (identifier(lab_id), identifier(bill_id))
    sought = caller.bill_key(*key)
    known = time_parameter("known_at", known_at)
    happened = time_parameter("as_of", as_of)
    if known or happened:
        return await _bill_from_log(services, key, sought, known or datetime.now(UTC), happened)
    now = datetime.now(UTC)
    values = {**parameters(services.policy, now), "labs": [sought[0]], "bills": [sought[1]]}
    rows = await services.fetch_state(_BILLS, values)
    stored = stored_bill(rows[0])
    position = stored.position
    if stored.error is not None:
        raise _parked(key, stored.error)
    content = bill_content(stored, services.policy, now)
    if content is None:
        raise await unknown_bill(services, key, sought, position)
    return answer(content, position)


def bill_content(stored: StoredBill, policy: Policy, now: datetime) -> bytes | None:
    """Return what is answered of a stored bill; None if the state has no such bill."""
    summary = stored.summary
    if summary is None:
        return None
    shown = []
    if stored.missing:
        folded = (missing.folded() for missing in decode_many(stored.missing))
        key = (summary.lab_id, summary.bill_id)
        shown = items(folded, key, summary.integrator_id, policy, now)
    return _whole(summary, stored.reports, shown)


async def _bill_from_log(
    services: Services, key: Key, sought: Key, known: datetime, happened: datetime | None
) -> Response[bytes]:
    """Fold a part of the bill's events, with the missing events as of the time `known`.

    `sought` is the bill's key, or that of no bill.
    """
    head, history = await _history(services, key, sought, known, happened)
    if not history.events:
        raise await unknown_bill(services, key, sought, head, at_a_time=True)
    bill: FoldedBill = fold(*key, history.events, history.decisions)
    subscription = await services.fetch(_SUBSCRIPTION, (key[0], known))
    subscribed = (subscription and subscription[0][0]) or services.policy.events
    missing = [one for one in bill.missing_events if one.event_type in subscribed]
    now = min(known, datetime.now(UTC))  # an event still awaited must not be shown as overdue
    shown = items(missing, key, bill.summary.integrator_id, services.policy, now)
    content = _whole(bill.summary, bill.reports, shown)
    return answer(content, head)


async def _history(
    services: Services, key: Key, sought: Key, known: datetime, happened: datetime | None
) -> tuple[int, BillEvents]:
    """Return the log's position, and a bill's events that were known and had happened then."""
    head, size = (await services.fetch(_SIZE, sought))[0]
    query = read.bill_then(sought, known, happened)
    if size <= _FETCHED:
        head, history = _added(head, map(LogRow._make, await services.fetch(query, None)))
    else:
        head, history = await services.run(
            lambda connection: _added(head, read.one_by_one(connection, query))
        )
    try:
        history.raise_if_too_large()
    except BillTooLargeError as error:
        raise _parked(key, str(error)) from error
    return head, history


def _added(head: int, rows: Iterable[LogRow]) -> tuple[int, BillEvents]:
    history = BillEvents()
    for row in rows:
        head = max(head, row.position)
        history.add(read_row(row), len(row.body))
    return head, history


def _whole(
    summary: BillSummary, reports: Sequence[Report], missing: Sequence[MissingEventItem]
) -> bytes:
    parts = (encode(summary)[:-1], encode(reports), encode(missing))
    return b'%b,"reports":%b,"missing_events":%b}' % parts


@get(
    "/v1/labs/{lab_id:str}/bills/{bill_id:str}/findings",
    opt=READ,
    operation_id="ListFindings",
    responses={200: ok(Page[Finding], description="Sorted by code; in one part.")},
)
async def list_findings(
    services: Services, caller: Caller, lab_id: str, bill_id: str
) -> Response[bytes]:
    """Explain the findings of a bill: what each means here, and which events it is about."""
    key = (identifier(lab_id), identifier(bill_id))
    sought = caller.bill_key(*key)
    head, history = await _history(services, key, sought, datetime.now(UTC), None)
    if not history.events:
        raise await unknown_bill(services, key, sought, head)
    found = findings(history_of(history.events))
    return answer(page(map(encode, found), None), head)


def _parked(key: tuple[str, str], error: str) -> ProblemError:
    return ProblemError(
        500,
        f"bill {key[1]!r} of lab {key[0]!r} is parked, for its events could not be folded: {error}."
        " They are safe in the log; `ledger rebuild --bill LAB BILL` tries again",
    )


async def bill_items(
    services: Services,
    conditions: Sequence[Condition],
    *,
    limit: int,
    newest_first: bool,
) -> tuple[int, list[tuple[int, bytes]]]:
    """Return the state's position, and bills in a list, each with its position.

    Conditions are those of `list_query`.
    """
    query, values = list_query(
        conditions, services.policy, datetime.now(UTC), limit=limit, newest_first=newest_first
    )
    rows = await services.fetch_state(query, values)
    found = [
        (one.summary.position, with_members(encode(one.summary), missing=b"%d" % one.missing))
        for one in listed(rows)
    ]
    return rows[0][0], found


@get(
    "/v1/bills",
    opt=READ,
    operation_id="ListBills",
    responses={200: ok(Page[BillItem], description="Newest change first.")},
)
async def list_bills(
    services: Services,
    caller: Caller,
    integrator_id: str | None = None,
    lab_id: str | None = None,
    bill_state: Annotated[State | None, QueryParameter(name="state", required=False)] = None,
    changed_after: OptionalPosition = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List bills, the one that changed last first."""
    conditions: list[Condition] = [
        (text, value)
        for text, value in (
            ("b.integrator_id = {}", integrator_id),
            ("b.state = {}", bill_state),
            ("b.position > {}", changed_after),
        )
        if value is not None
    ]
    conditions += of_labs(caller.narrowed(lab_id))
    if before := read_cursor(cursor, int):
        conditions.append(("b.position < {}", before[0]))
    position, found = await bill_items(services, conditions, limit=limit + 1, newest_first=True)
    following = write_cursor(found[limit - 1][0]) if len(found) > limit else None
    return answer(page((item for _, item in found[:limit]), following), position)
