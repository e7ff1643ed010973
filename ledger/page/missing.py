"""Missing events: filter, choose, look at what will be done, then waive or ask support."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.response import Redirect
from msgspec import Struct
from psycopg import Connection

from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.parameters import (
    from_microseconds,
    read_cursor,
    to_microseconds,
    write_cursor,
)
from ledger.api.permissions import Caller
from ledger.api.services import PATIENCE, Services
from ledger.errors import LedgerError, QuestionError
from ledger.event_types import EventType
from ledger.model.event import Identifier
from ledger.model.missing_events import Certainty, MissingState
from ledger.model.operators import Operator
from ledger.operations.loss_windows import read_windows
from ledger.operations.missing_events.by_lab import MOST as COUNTED
from ledger.operations.missing_events.by_lab import LabMissing, missing_by_lab
from ledger.operations.missing_events.queries import (
    LAST_POSITION,
    Filter,
    cursor_of,
    item_of,
    list_query,
)
from ledger.operations.missing_events.waive import unwaive, waive
from ledger.operations.needs import MOST, count_overdue
from ledger.operations.read_models import LossWindow
from ledger.operations.support_requests import make
from ledger.page.headers import SECURITY
from ledger.page.parameters import choice_of, text_of, written
from ledger.page.render import respond
from ledger.projection import store

PART = 50
MOST_LABS = 200

AnyRequest = Request[Any, Any, Any]

FILTERS = ("state", "lab", "type", "certainty", "bill")


class Chosen(Struct, frozen=True, array_like=True):
    """A missing event that was chosen, by its name."""

    lab_id: Identifier
    bill_id: Identifier
    event_type: EventType
    test_id: Identifier | None


class MissingEventsController(Controller):
    """Missing events."""

    path = "/"
    include_in_schema = False

    @get("/missing-events", opt=READ)
    async def list_missing(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List missing events, the one missing longest first."""
        now = datetime.now(UTC)
        filters = {name: text_of(request, name) for name in FILTERS}
        key = read_cursor(text_of(request, "cursor"), int, str, str, str, str)
        wanted = Filter(
            state=choice_of(request, "state", MissingState),
            labs=caller.narrowed(filters["lab"]),
            bill_id=filters["bill"],
            event_type=choice_of(request, "type", EventType),
            certainty=choice_of(request, "certainty", Certainty),
        )
        query, values = list_query(
            wanted,
            services.policy,
            now,
            limit=PART + 1,
            after=(from_microseconds(key[0]), key[1], key[2], key[3], key[4]) if key else None,
        )
        rows = await services.fetch_state(query, values)
        found = [row for row in rows if row[1] is not None]
        following = None
        if len(found) > PART:
            received, *rest = cursor_of(found[PART - 1])
            following = write_cursor(to_microseconds(received), *rest)
        items = [item_of(row[1:], services.policy, now) for row in found[:PART]]
        names = [
            msgspec.json.encode((one.lab_id, one.bill_id, one.event_type, one.test_id)).decode()
            for one in items
        ]
        return respond(
            request, "missing.html", position=rows[0][0], filters=filters,
            items=list(zip(items, names, strict=True)), following=following,
        )  # fmt: skip

    @get("/missing-events/labs", opt=READ)
    async def list_by_lab(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List labs by how much is missing of them."""
        filters = {name: text_of(request, name) for name in FILTERS[:4]}
        wanted = Filter(
            state=choice_of(request, "state", MissingState),
            labs=caller.narrowed(filters["lab"]),
            event_type=choice_of(request, "type", EventType),
            certainty=choice_of(request, "certainty", Certainty),
        )

        def work(connection: Connection) -> tuple[int, list[LabMissing], bool]:
            position = store.read_checkpoint(connection).position
            labs, is_all = missing_by_lab(
                connection, services.policy, datetime.now(UTC), wanted, limit=MOST_LABS + 1
            )
            return position, labs, is_all

        position, labs, is_all = await services.run(work)
        return respond(
            request, "missing_labs.html", position=position, filters={**filters, "bill": None},
            labs=labs[:MOST_LABS], is_cut=len(labs) > MOST_LABS, is_all=is_all, counted=COUNTED,
        )  # fmt: skip

    @post("/missing-events/preview", opt=OPERATE, status_code=200)
    async def preview(self, request: AnyRequest, caller: Caller) -> Response[str]:
        """Show what was chosen before it is waived, or its waiver taken back."""
        chosen, form = await _chosen(request, caller)
        back = form.get("action") == "unwaive"
        return respond(
            request, "missing_preview.html", chosen=[(one, _name(one)) for one in chosen], back=back
        )

    @post("/missing-events/waive", opt=OPERATE, status_code=200)
    async def waive_chosen(
        self, request: AnyRequest, services: Services, caller: Caller, operator: Operator
    ) -> Response[str]:
        """Waive what was chosen, or take its waivers back; tell what came of each."""
        chosen, form = await _chosen(request, caller)
        back = form.get("action") == "unwaive"
        reason = written(form, "reason")
        outcomes: list[tuple[Chosen, MissingState | None, str | None]] = []
        for one in chosen:
            decision = unwaive if back else waive
            try:
                item, _ = await services.decide(
                    lambda one=one, decision=decision: decision(  # type: ignore[misc]
                        services.url, services.policy,
                        (one.lab_id, one.bill_id, one.event_type, one.test_id),
                        reason=reason, by=operator, patience=PATIENCE,
                    )
                )  # fmt: skip
                outcomes.append((one, item.state, None))
            except LedgerError as error:
                outcomes.append((one, None, str(error)))
        return respond(request, "missing_outcome.html", outcomes=outcomes, reason=reason, back=back)

    @get("/missing-events/ask", opt=OPERATE)
    async def preview_request(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """Show what a support request would ask for, before it is made."""
        lab_id = text_of(request, "lab")
        labs = caller.narrowed(lab_id)
        now = datetime.now(UTC)

        def work(connection: Connection) -> tuple[int, int, list[LossWindow]]:
            counts = [
                count_overdue(
                    connection, services.policy, now, Filter(labs=labs, certainty=certainty)
                )[0]
                for certainty in ("certain", "possible")
            ]
            windows = read_windows(
                connection, services.policy, now, position=LAST_POSITION, labs=labs
            )
            open_ones = [one for one in windows if one.state == "open" and one.labs]
            return counts[0], counts[1], open_ones

        certain, possible, windows = await services.run(work)
        return respond(
            request, "ask_preview.html", lab=lab_id, certain=certain, possible=possible,
            windows=windows, most=MOST,
        )  # fmt: skip

    @post("/missing-events/ask", opt=OPERATE, status_code=200)
    async def make_request(
        self, request: AnyRequest, services: Services, operator: Operator
    ) -> Response[Any]:
        """Make the support request and show it."""
        form = await request.form()
        lab_id = str(form.get("lab") or "") or None
        note = written(form, "note") if form.get("note") else None
        made = await services.decide(
            lambda: make.make_request(
                services.url, services.policy, lab_id=lab_id,
                include_possible=form.get("possible") == "yes", note=note, by=operator,
                patience=PATIENCE,
            )
        )  # fmt: skip
        if made is None:
            raise QuestionError("nothing is overdue that was not asked for, so nothing was asked")
        address = f"{services.settings.path_prefix}/requests/{made[0].number}?done=made"
        return Redirect(address, status_code=303, headers=SECURITY)


async def _chosen(request: AnyRequest, caller: Caller) -> tuple[list[Chosen], Any]:
    """Return what was chosen in a form. Of labs that the key is not for there is nothing."""
    form = await request.form()
    try:
        chosen = [msgspec.json.decode(str(text), type=Chosen) for text in form.getall("event", [])]
    except (msgspec.DecodeError, ValueError):
        raise QuestionError("the form names something that is no missing event") from None
    chosen = [one for one in chosen if caller.sees(one.lab_id)]
    if not chosen:
        raise QuestionError("nothing was chosen: mark at least one missing event")
    if len(chosen) > PART:
        raise QuestionError(f"at most {PART} missing events can be chosen at once")
    return chosen, form


def _name(one: Chosen) -> str:
    return msgspec.json.encode(one).decode()
