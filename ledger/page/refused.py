"""Refused deliveries: with a wrong token, kept outside the log until somebody decides."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from litestar import Controller, Request, Response, get, post
from msgspec import Struct

from ledger.api.http.guards import ADMIN
from ledger.api.http.parameters import (
    from_microseconds,
    read_cursor,
    to_microseconds,
    write_cursor,
)
from ledger.api.permissions import Caller
from ledger.api.services import Services
from ledger.errors import QuestionError
from ledger.model.operators import Operator
from ledger.operations.refused_deliveries.decide import accept, drop
from ledger.operations.refused_deliveries.keep import Refusal
from ledger.operations.refused_deliveries.queries import Selection, list_refused, read_refused
from ledger.page.body_text import SHOWN_BYTES, body_text
from ledger.page.parameters import choice_of, text_of
from ledger.page.render import respond

PART = 50

Decision = Literal["accept", "drop"]

AnyRequest = Request[Any, Any, Any]


class Chosen(Struct, frozen=True):
    """What a form chose: deliveries by their ids, or all that meet the filters.

    `looked_at` is when it was shown what that means: what came since is not decided about.
    """

    action: Decision
    ids: tuple[str, ...] | None
    lab: str | None
    reason: Refusal | None
    looked_at: datetime

    def selection(self, caller: Caller) -> Selection:
        """Return it as far as the key may decide about it."""
        return Selection(self.ids, caller.narrowed(self.lab), self.reason, self.looked_at)


class RefusedController(Controller):
    """Refused deliveries."""

    path = "/"
    include_in_schema = False

    @get("/refused", opt=ADMIN)
    async def list_refused(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List refused deliveries, the first received first."""
        filters = {name: text_of(request, name) for name in ("lab", "reason")}
        key = read_cursor(text_of(request, "cursor"), int, str)
        after = (from_microseconds(key[0]), key[1]) if key else None
        selection = Selection(
            labs=caller.narrowed(filters["lab"]), reason=choice_of(request, "reason", Refusal)
        )
        found = await services.run(
            lambda connection: list_refused(connection, selection, limit=PART + 1, after=after)
        )
        following = None
        if len(found) > PART:
            last = found[PART - 1]
            following = write_cursor(to_microseconds(last.received_at), last.delivery_id)
        return respond(
            request, "refused.html", position=services.watch.position, filters=filters,
            deliveries=found[:PART], following=following,
        )  # fmt: skip

    @get("/refused/{delivery_id:str}", opt=ADMIN)
    async def show_refused(
        self, request: AnyRequest, services: Services, caller: Caller, delivery_id: str
    ) -> Response[str]:
        """Show a refused delivery with its body."""
        found, body = await services.run(
            lambda connection: read_refused(connection, delivery_id, labs=caller.labs)
        )
        text, is_text = body_text(body)
        return respond(
            request, "refused_delivery.html", found=found, text=text, is_text=is_text,
            cut=len(body) > SHOWN_BYTES,
        )  # fmt: skip

    @post("/refused/preview", opt=ADMIN, status_code=200)
    async def preview(
        self, request: AnyRequest, services: Services, caller: Caller, operator: Operator
    ) -> Response[str]:
        """Show how many deliveries would be accepted or dropped, of which labs."""
        chosen = _chosen(await request.form())
        labs = await _decide(services, chosen, chosen.selection(caller), operator, dry_run=True)
        name = msgspec.json.encode(chosen).decode()
        return respond(request, "refused_preview.html", chosen=chosen, name=name, labs=labs[0])

    @post("/refused/decide", opt=ADMIN, status_code=200)
    async def decide(
        self, request: AnyRequest, services: Services, caller: Caller, operator: Operator
    ) -> Response[str]:
        """Accept or drop what was shown, and tell what came of it."""
        form = await request.form()
        try:
            chosen = msgspec.json.decode(str(form.get("chosen", "")), type=Chosen)
        except (msgspec.DecodeError, ValueError):
            raise QuestionError("the form names no refused deliveries") from None
        labs, recorded = await _decide(
            services, chosen, chosen.selection(caller), operator, dry_run=False
        )
        return respond(request, "refused_outcome.html", chosen=chosen, labs=labs, recorded=recorded)


async def _decide(
    services: Services, chosen: Chosen, selection: Selection, by: Operator, *, dry_run: bool
) -> tuple[dict[str, int], int]:
    """Return how many deliveries of each lab it is about, and how many are new in the log."""
    if chosen.action == "accept":
        accepted, _ = await services.decide(
            lambda: accept(services.url, selection, by=by, dry_run=dry_run)
        )
        return accepted.labs, accepted.recorded
    dropped, _ = await services.decide(
        lambda: drop(services.url, selection, by=by, dry_run=dry_run)
    )
    return dropped.labs, 0


def _chosen(form: Any) -> Chosen:  # noqa: ANN401 -- the framework's form
    verb, _, scope = str(form.get("action", "")).partition("-")
    ids = None if scope == "all" else form.getall("id", [])
    if ids == []:
        raise QuestionError("nothing was chosen: mark at least one delivery")
    try:
        return msgspec.convert(
            {
                "action": verb,
                "ids": ids,
                "lab": str(form.get("lab", "")) or None,
                "reason": str(form.get("reason", "")) or None,
                "looked_at": datetime.now(UTC),
            },
            Chosen,
        )
    except msgspec.ValidationError:
        raise QuestionError("the form names no decision about refused deliveries") from None
