"""The list of bills: one search field, and filters."""

from datetime import UTC, datetime
from typing import Any

from litestar import Controller, Request, Response, get

from ledger.api.http.guards import READ
from ledger.api.http.parameters import read_cursor, write_cursor
from ledger.api.permissions import Caller
from ledger.api.services import Services
from ledger.model.bill import State
from ledger.operations.bill_lists import (
    MOST_FOUND,
    Condition,
    ListedBill,
    found,
    labs_query,
    list_query,
    listed,
    of_labs,
    search_query,
)
from ledger.operations.loss_windows import position_at
from ledger.page.parameters import Yes, choice_of, day_of, text_of
from ledger.page.render import respond, zone_of

PART = 50

AnyRequest = Request[Any, Any, Any]


class BillsController(Controller):
    """Bills in a list."""

    path = "/"
    include_in_schema = False

    @get("/bills", opt=READ)
    async def list_bills(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List bills, the one that changed last first; or those that a search finds."""
        if text := text_of(request, "q"):
            return await _search(request, services, caller, text)
        now = datetime.now(UTC)
        filters = {name: text_of(request, name) for name in ("state", "lab", "missing", "since")}
        state = choice_of(request, "state", State)
        conditions: list[Condition] = of_labs(caller.narrowed(filters["lab"]))
        if state:
            conditions.append(("b.state = {}", state))
        if choice_of(request, "missing", Yes):
            conditions.append(("b.missing > {}", 0))
        if since := day_of(request, "since", zone_of(request)[1]):
            position = await services.run(lambda connection: position_at(connection, since))
            conditions.append(("b.position > {}", position))
        if before := read_cursor(text_of(request, "cursor"), int):
            conditions.append(("b.position < {}", before[0]))
        query, values = list_query(
            conditions, services.policy, now, limit=PART + 1, newest_first=True
        )
        rows = await services.fetch_state(query, values)
        bills = listed(rows)
        following = None
        if len(bills) > PART:
            following = write_cursor(bills[PART - 1].summary.position)
        return respond(
            request, "bills.html", position=rows[0][0], q=None, filters=filters,
            bills=bills[:PART], labs=[], following=following, cut=False,
        )  # fmt: skip


async def _search(
    request: AnyRequest, services: Services, caller: Caller, text: str
) -> Response[str]:
    query, values = search_query(text, services.policy, datetime.now(UTC), labs=caller.labs)
    rows = await services.fetch_state(query, values)
    labs_rows = await services.fetch(*labs_query(text, labs=caller.labs))
    bills = found(rows)
    bills.sort(key=lambda one: _place(one, text))
    counts = [sum(row[1] == kind for row in rows) for kind in ("bill", "integrator", "test")]
    cut = max(counts) > MOST_FOUND or len(labs_rows) > MOST_FOUND
    filters = dict.fromkeys(("state", "lab", "missing", "since"))
    return respond(
        request, "bills.html", position=rows[0][0], q=text, filters=filters, bills=bills,
        labs=[row[0] for row in labs_rows[:MOST_FOUND]], following=None, cut=cut,
    )  # fmt: skip


def _place(one: ListedBill, text: str) -> tuple[bool, str, str]:
    """Return the place of a bill among those found: exact matches first."""
    exact = text in (one.summary.bill_id, one.summary.integrator_id)
    return (not exact, one.matched or "", one.summary.bill_id)
