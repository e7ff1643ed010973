"""One bill: what is known of it, what is missing, and how that became known."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from litestar import Controller, Request, Response, get
from psycopg import Connection

from ledger.api.http.guards import READ
from ledger.api.http.paths import identifier
from ledger.api.permissions import Caller
from ledger.api.schemas import attempt_of
from ledger.api.services import Services
from ledger.errors import UnknownSubjectError
from ledger.eventlog import read
from ledger.operations.bill_details import BillDetails, LoggedItem, read_bill
from ledger.operations.policy import Policy
from ledger.operations.render.words import shown
from ledger.operations.support_requests.queries import BillLine, lines_of_bill
from ledger.page.chart import Row, timeline
from ledger.page.parameters import number_of
from ledger.page.render import respond, zone_of

AnyRequest = Request[Any, Any, Any]

DRAWN = 60
"""Events in the time line; the table has all of them."""

LONGEST_NAME = 36
"""Characters that fit before a row of the time line."""


class BillController(Controller):
    """A bill."""

    path = "/"
    include_in_schema = False

    @get("/labs/{lab_id:str}/bills/{bill_id:str}", opt=READ)
    async def show_bill(
        self, request: AnyRequest, services: Services, caller: Caller, lab_id: str, bill_id: str
    ) -> Response[str]:
        """Show a bill as it is, or as it was known at one of its positions."""
        key = (identifier(lab_id), identifier(bill_id))
        sought = caller.bill_key(*key)
        known_at = number_of(request, "at")
        now = datetime.now(UTC)

        def work(connection: Connection) -> tuple[int, BillDetails, list[BillLine]]:
            position = read.head(connection)
            details = read_bill(connection, services.policy, *sought, now, known_at=known_at)
            lines = [] if known_at is not None else lines_of_bill(connection, *sought)
            return position, details, lines

        position = None
        details = None
        with suppress(UnknownSubjectError):  # whose message would name the key of no bill
            position, details, lines = await services.run(work)
        if details is None:
            raise UnknownSubjectError(
                f"no event of bill {shown(key[1])} of lab {shown(key[0])} has been received"
            )
        known = [one for one in details.events if known_at is None or one.position <= known_at]
        return respond(
            request,
            "bill.html",
            position=position,
            key=key,
            bill=details.bill,
            findings=details.findings,
            events=[(one, _attempt(one, services.policy)) for one in known],
            later=len(details.events) - len(known),
            positions=[one.position for one in details.events],
            received={one.position: one for one in details.events},
            known_at=known_at,
            as_of=known[-1].received_at if known_at is not None and known else now,
            lines=lines,
            chart=timeline(_rows(details, known), zone_of(request)[1]),
        )


def _attempt(one: LoggedItem, policy: Policy) -> int | None:
    return attempt_of(
        one.source, one.event_time, one.received_at, policy.retry_interval, policy.retry_count
    )


def _rows(details: BillDetails, known: list[LoggedItem]) -> list[Row]:
    rows = []
    for one in known[-DRAWN:]:
        happened = None if one.source == "operator" else one.event_time
        rows.append(Row(one.event_type or "unreadable", happened, one.received_at))
    missing = details.bill.missing_events if details.bill else []
    for lost in missing[:DRAWN]:
        of_test = f" {shown(lost.test_id)}" if lost.test_id else ""
        name = _short(f"missing: {lost.event_type}{of_test}")
        is_latest = lost.event_type != "bill.completed"
        rows.append(Row(name, lost.evidence.event_time, None, is_latest=is_latest))
    return sorted(rows, key=lambda row: row.happened or row.received or datetime.now(UTC))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}..."
