"""Loss windows: when nothing could be received, and why some of it is lost."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.response import Redirect
from msgspec import Struct
from psycopg import Connection

from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.parameters import read_cursor, write_cursor
from ledger.api.permissions import Caller
from ledger.api.services import PATIENCE, Services
from ledger.errors import QuestionError
from ledger.model.loss_windows import Interval
from ledger.model.operators import Operator
from ledger.operations import loss_windows
from ledger.operations.missing_events.queries import LAST_POSITION
from ledger.operations.read_models import LossWindow, WindowState
from ledger.page.chart import attempts
from ledger.page.headers import SECURITY
from ledger.page.parameters import choice_of, text_of, written
from ledger.page.render import respond, zone_of
from ledger.projection import store

PART = 20

AnyRequest = Request[Any, Any, Any]


class Named(Struct, frozen=True, array_like=True):
    """A window as a form names it."""

    begin: datetime
    end: datetime


class WindowsController(Controller):
    """Loss windows."""

    path = "/"
    include_in_schema = False

    @get("/loss-windows", opt=READ)
    async def list_windows(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List loss windows, the newest first, each drawn with the attempts around it."""
        state = choice_of(request, "state", WindowState)
        lab_id = text_of(request, "lab")
        now = datetime.now(UTC)
        labs = caller.narrowed(lab_id)

        def work(connection: Connection) -> tuple[int, list[LossWindow], list[Interval]]:
            position = store.read_checkpoint(connection).position
            found = loss_windows.read_windows(
                connection, services.policy, now, position=LAST_POSITION, labs=labs
            )
            return position, found, loss_windows.read_outages(connection, now)

        position, found, outages = await services.run(work)
        found = [one for one in reversed(found) if state in (None, one.state)]
        key = read_cursor(text_of(request, "cursor"), int)
        begin = key[0] if key else 0
        following = write_cursor(begin + PART) if len(found) > begin + PART else None
        policy, zone = services.policy, zone_of(request)[1]
        windows = [
            (
                one,
                attempts(
                    Interval(one.begin, one.end), outages, policy.retry_interval,
                    policy.retry_count, zone,
                ),
                msgspec.json.encode((one.begin, one.end)).decode(),
            )
            for one in found[begin : begin + PART]
        ]  # fmt: skip
        return respond(
            request, "windows.html", position=position, windows=windows, following=following,
            filters={"state": state, "lab": lab_id}, policy=policy,
            done=text_of(request, "done"),
        )  # fmt: skip

    @post("/loss-windows/preview", opt=OPERATE, status_code=200)
    async def preview_close(self, request: AnyRequest) -> Response[str]:
        """Show which window is to be closed, and ask for the reason."""
        form = await request.form()
        window = _named(form)
        return respond(request, "window_close.html", window=window, name=str(form.get("window")))

    @post("/loss-windows/close", opt=OPERATE, status_code=200)
    async def close(
        self, request: AnyRequest, services: Services, operator: Operator
    ) -> Response[Any]:
        """Close a window for the labs that the key is for."""
        form = await request.form()
        window, reason = _named(form), written(form, "reason")
        await services.decide(
            lambda: loss_windows.close_window(
                services.url, services.policy, (window.begin, window.end), labs=None,
                reason=reason, by=operator, patience=PATIENCE,
            )
        )  # fmt: skip
        address = f"{services.settings.path_prefix}/loss-windows?done=closed"
        return Redirect(address, status_code=303, headers=SECURITY)


def _named(form: Any) -> Named:  # noqa: ANN401 -- the framework's form
    try:
        named = msgspec.json.decode(str(form.get("window", "")), type=Named)
        return Named(named.begin.astimezone(UTC), named.end.astimezone(UTC))
    except (msgspec.DecodeError, ValueError, OverflowError):
        raise QuestionError("the form names no loss window") from None
