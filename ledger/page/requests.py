"""Support requests: what was asked, what came, and the letter as it is sent."""

from io import BytesIO
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.response import Redirect, Stream
from psycopg import Connection

from ledger.api.handlers.support_requests import LAST_NUMBER, Number
from ledger.api.http.content_negotiation import ENDINGS, Document, Form
from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.parameters import read_cursor, write_cursor
from ledger.api.permissions import Caller
from ledger.api.services import PATIENCE, Services
from ledger.errors import UnknownSubjectError
from ledger.model.operators import Operator
from ledger.operations.read_models import RequestItem, SupportRequest
from ledger.operations.render import Sender, write_request
from ledger.operations.support_requests import make, queries
from ledger.page.headers import SECURITY
from ledger.page.parameters import text_of, written
from ledger.page.render import respond
from ledger.projection import store

PART = 50
LINES = 500
"""Lines of a request that its page shows; the letter and the files have all of them."""

AnyRequest = Request[Any, Any, Any]


class RequestsController(Controller):
    """Support requests."""

    path = "/"
    include_in_schema = False

    @get("/requests", opt=READ)
    async def list_requests(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List support requests, the newest first."""
        key = read_cursor(text_of(request, "cursor"), int)
        before = min(key[0], LAST_NUMBER) if key else None

        def work(connection: Connection) -> tuple[int, list[RequestItem]]:
            position = store.read_checkpoint(connection).position
            return position, queries.list_requests(
                connection, limit=PART + 1, before=before, labs=caller.labs
            )

        position, found = await services.run(work)
        following = write_cursor(found[PART - 1].number) if len(found) > PART else None
        return respond(
            request, "requests.html", position=position, requests=found[:PART], following=following
        )

    @get("/requests/{number:int}", opt=READ)
    async def show_request(
        self, request: AnyRequest, services: Services, caller: Caller, number: Number
    ) -> Response[str]:
        """Show a support request with its letter."""
        sender = Sender.of(services.settings)

        def work(connection: Connection) -> tuple[int, SupportRequest, bool]:
            position = store.read_checkpoint(connection).position
            found = queries.read_request(connection, number, labs=caller.labs)
            return position, found, queries.concerns_only(connection, number, caller.labs)

        position, found, whole = await services.run(work)
        letter = BytesIO()
        write_request(found, "markdown", letter, sender=sender)
        counts = {state: sum(line.state == state for line in found.lines) for state in STATES}
        return respond(
            request,
            "request.html",
            position=position,
            found=found,
            whole=whole,
            counts=counts,
            lines=list(enumerate(found.lines[:LINES], 1)),
            letter=letter.getvalue().decode(),
            endings=list(ENDINGS.values()),
            done=text_of(request, "done"),
        )

    @get("/requests/{number:int}/letter/{ending:str}", opt=READ)
    async def download(
        self, services: Services, caller: Caller, number: Number, ending: str
    ) -> Response[bytes] | Stream:
        """Download a support request in one of its forms."""
        forms: dict[str, Form] = {one: form for form, one in ENDINGS.items()}
        if ending not in forms:
            raise UnknownSubjectError(f"a request can be had as {', '.join(forms)}")
        sender = Sender.of(services.settings)

        def work(connection: Connection) -> Document:
            position = store.read_checkpoint(connection).position
            found = queries.read_request(connection, number, labs=caller.labs)
            return Document.write(
                forms[ending],
                f"support-request-{number}",
                position,
                lambda file: write_request(found, forms[ending], file, sender=sender),
            )

        response = (await services.run(work)).response()
        name = f"support-request-{number}.{ending}"
        response.headers.update(SECURITY)
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response

    @get("/requests/{number:int}/close", opt=OPERATE)
    async def preview_close(
        self, request: AnyRequest, services: Services, caller: Caller, number: Number
    ) -> Response[str]:
        """Show what closing a request would do."""
        found = await services.run(
            lambda connection: queries.read_request(connection, number, labs=caller.labs)
        )
        lines = sum(line.state == "requested" for line in found.lines)
        windows = sum(window.state == "requested" for window in found.loss_windows)
        return respond(request, "request_close.html", found=found, lines=lines, windows=windows)

    @post("/requests/{number:int}/close", opt=OPERATE, status_code=200)
    async def close(
        self, request: AnyRequest, services: Services, number: Number, operator: Operator
    ) -> Response[Any]:
        """Close what a request asked for and will not come."""
        reason = written(await request.form(), "reason")
        await services.decide(
            lambda: make.close_request(
                services.url, number, reason=reason, by=operator, lines=None, patience=PATIENCE
            )
        )
        address = f"{services.settings.path_prefix}/requests/{number}?done=closed"
        return Redirect(address, status_code=303, headers=SECURITY)


STATES = ("requested", "received", "closed")
